"""What no schema checks in a Compose file: names that lead nowhere, open ports, secrets with defaults, loose images.

Each rule takes the merged configuration and returns its findings as sentences; none means it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<rule>:?[-?+])?(?P<rest>[^}]*)\}")
SECRET = re.compile(r"(PASSWORD|TOKEN|SECRET|ACCESS_KEY|ACCESS_KEY_ID|API_KEY)$")
USED = ("volumes", "secrets", "configs", "networks")


def read(*files: Path) -> dict[str, Any]:
    """The files as Compose merges them: mappings by key, lists one after the other, else the last one's word."""
    merged: dict[str, Any] = {}
    for file in files:
        merged = _merge(merged, yaml.safe_load(file.read_text()))
    return merged


def _merge(first: Any, second: Any) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        return first | {key: _merge(first[key], value) if key in first else value for key, value in second.items()}
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    return second


def defaults(text: str) -> str:
    """A value as it is with an empty environment."""
    return VARIABLE.sub(lambda found: found["rest"] if found["rule"] in ("-", ":-") else "", text)


def _names(kind: str, entries: Any) -> Iterator[str]:
    """The top-level names that a service's list (or mapping) of volumes, secrets, … refers to."""
    for entry in entries or []:
        if isinstance(entry, dict):
            if kind != "volumes" or entry.get("type", "volume") == "volume":
                yield entry.get("source", "")
        elif kind == "volumes":
            source, _, target = defaults(entry).partition(":")
            if target and not source.startswith((".", "/", "~")):  # else anonymous, or a path of the host
                yield source
        else:
            yield entry


def dangling(config: dict[str, Any]) -> list[str]:
    """Names that are used and not declared, or declared and not used."""
    found, services = [], config["services"]
    for name, service in services.items():
        for other in service.get("depends_on", []):
            if other not in services:
                found.append(f"{name} depends on {other}, which is no service")
    for kind in USED:
        declared = set(config.get(kind) or {})
        used = {name for service in services.values() for name in _names(kind, service.get(kind))} - {""}
        if kind == "networks":
            used -= {"default"}
        found += [f"{kind}: {name} is used and not declared" for name in sorted(used - declared)]
        found += [f"{kind}: {name} is declared and not used" for name in sorted(declared - used)]
    return found


def health_checks(config: dict[str, Any]) -> list[str]:
    """Services that others wait for: with a check here, or built from a Dockerfile of ours, which has one."""
    services, found = config["services"], []
    built = {service["image"] for service in services.values() if "build" in service}
    for name, service in services.items():
        for other, rule in dict(service.get("depends_on", {})).items():
            target = services.get(other, {})
            own = target.get("image") in built and not target.get("healthcheck", {}).get("disable")
            if rule["condition"] == "service_healthy" and not own and "test" not in target.get("healthcheck", {}):
                found.append(f"{name} waits for {other} to be healthy, which has no health check")
    return found


def ports(config: dict[str, Any]) -> list[str]:
    """Ports are published on a loopback address unless the one who starts the stack says otherwise."""
    found = []
    for name, service in config["services"].items():
        if service.get("network_mode") == "host":
            found.append(f"{name}: network_mode host publishes every port")
        for port in service.get("ports", []):
            address = port.get("host_ip", "") if isinstance(port, dict) else defaults(str(port)).rpartition(":")[0]
            if not address.startswith(("127.", "[::1]")):
                found.append(f"{name}: port {port} is not published on a loopback address")
    return found


def secret_values(text: str, config: dict[str, Any]) -> list[str]:
    """Secrets in the file itself: as a variable's default, in a service's environment, or inside a URI."""
    found = [
        f"${{{variable['name']}}}: a secret with a default"
        for variable in VARIABLE.finditer(text)
        if SECRET.search(variable["name"]) and variable["rule"] in ("-", ":-")
    ]
    for name, service in config["services"].items():
        environment = service.get("environment") or {}
        pairs = environment.items() if isinstance(environment, dict) else (e.partition("=")[::2] for e in environment)
        for key, value in pairs:
            if SECRET.search(key) and defaults(str(value or "")):
                found.append(f"{name}: {key} has its value in the file")
            if re.search(r"://[^/\s:@]+:[^/\s@]+@", defaults(str(value or ""))):
                found.append(f"{name}: {key} is a URI with a password")
    return found


def images(config: dict[str, Any]) -> list[str]:
    """Every image has a version."""
    found = []
    for name, service in config["services"].items():
        if "image" in service:
            image = defaults(service["image"])
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in ("", "latest"):
                found.append(f"{name}: image {image} has no version")
        elif "build" in service:
            found.append(f"{name}: what is built has no name")
    return found


def hardening(config: dict[str, Any]) -> list[str]:
    """No service has more rights than it needs."""
    found = []
    for name, service in config["services"].items():
        if service.get("privileged"):
            found.append(f"{name}: privileged")
        if service.get("cap_drop") != ["ALL"]:
            found.append(f"{name}: keeps the engine's default capabilities")
        if "no-new-privileges:true" not in service.get("security_opt", []):
            found.append(f"{name}: may gain privileges")
        if not service.get("read_only"):
            found.append(f"{name}: can write to its root file system")
        if "restart" not in service:
            found.append(f"{name}: is not restarted")
        for volume in service.get("volumes", []):
            if "docker.sock" in str(volume):
                found.append(f"{name}: controls the engine")
    return found


def settings(texts: list[str], example: str) -> list[str]:
    """Variables of the files and of env.example: the same names, the same defaults."""
    used: dict[str, set[str]] = {}
    for variable in (found for text in texts for found in VARIABLE.finditer(text)):
        used.setdefault(variable["name"], set()).add(variable["rest"])
    shown = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    found = [f"{name} is missing in env.example" for name in sorted(used.keys() - shown.keys())]
    found += [f"{name} is in env.example and used nowhere" for name in sorted(shown.keys() - used.keys())]
    found += [
        f"{name} is {shown[name]} in env.example and {', '.join(sorted(used[name]))} in the files"
        for name in sorted(used.keys() & shown.keys())
        if used[name] != {shown[name]}
    ]
    return found + [f"{name}: a secret in env.example" for name in shown if SECRET.search(name)]
