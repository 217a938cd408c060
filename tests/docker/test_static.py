"""The files in docker/, by the linters of their kinds and by rules of our own. Each check is shown a wrong file too."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker import compose_rules as rules

pytestmark = pytest.mark.static

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "docker"
DOCKERFILES = [DOCKER / "Dockerfile", DOCKER / "mlflow.Dockerfile"]
BASE = DOCKER / "compose.yaml"
COMPOSE = sorted(DOCKER.glob("compose*.yaml"))
STACKS = [[BASE], *([BASE, other] for other in COMPOSE if other != BASE)]  # as they are used: alone, and overridden


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A linter that pip put beside this Python."""
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def changed(file: Path, old: str, new: str, folder: Path) -> Path:
    """A copy of a file with one thing changed."""
    text = file.read_text()
    assert old in text, f"{file.name} has no {old!r}: the test must follow the file"
    copy = folder / file.name
    copy.write_text(text.replace(old, new, 1))
    return copy


def stack_name(files: list[Path]) -> str:
    return "+".join(file.stem for file in files)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_dockerfiles_pass_hadolint(file, tmp_path):
    done = tool("hadolint", "--failure-threshold", "warning", file)
    assert done.returncode == 0, done.stdout
    wrong = changed(file, "STOPSIGNAL", "RUN cd /tmp && apt-get install gcc\nSTOPSIGNAL", tmp_path)
    done = tool("hadolint", "--failure-threshold", "warning", wrong)
    assert done.returncode != 0 and "DL3003" in done.stdout


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_files_follow_the_schema(file, tmp_path):
    schema = ("--builtin-schema", "vendor.compose-spec")
    done = tool("check-jsonschema", *schema, file)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / file.name
    wrong.write_text(re.sub(r"(?m)^    (deploy|command):", "    depends-on:", file.read_text(), count=1))
    done = tool("check-jsonschema", *schema, wrong)
    assert done.returncode != 0 and "depends-on" in done.stdout


def test_scripts_pass_shellcheck(tmp_path):
    scripts = sorted([*DOCKER.glob("*.sh"), *(ROOT / "tests/docker/standins").glob("*.sh")])
    assert len(scripts) >= 3
    done = tool("shellcheck", *scripts)
    assert done.returncode == 0, done.stdout
    wrong = changed(DOCKER / "make-secrets.sh", 'chmod 700 "$folder"', "chmod 700 $folder", tmp_path)
    assert "SC2086" in tool("shellcheck", wrong).stdout


RULES = (rules.dangling, rules.health_checks, rules.ports, rules.images, rules.hardening)


@pytest.mark.parametrize("files", STACKS, ids=stack_name)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_stacks_keep_the_rules(rule, files):
    for file in files[1:]:
        assert file.exists()
    assert rule(rules.read(*files)) == []


@pytest.mark.parametrize("files", STACKS, ids=stack_name)
def test_no_secret_is_in_a_compose_file(files):
    text = "".join(file.read_text() for file in files)
    assert rules.secret_values(text, rules.read(*files)) == []


@pytest.mark.parametrize("files", STACKS, ids=stack_name)
def test_files_that_a_stack_mounts_exist(files):
    config = rules.read(*files)
    for kind in ("configs", "secrets"):
        for name, entry in (config.get(kind) or {}).items():
            path = rules.defaults(entry["file"])
            if kind == "secrets":  # written by the script, never part of the repository
                assert path.startswith("./secrets/"), name
                assert f"write {name}\n" in (DOCKER / "make-secrets.sh").read_text(), name
            else:
                assert (DOCKER / path).is_file(), f"{name}: {path} is missing"


def test_env_example_names_every_setting_with_its_default():
    texts = [file.read_text() for file in COMPOSE]
    example = (DOCKER / "env.example").read_text()
    assert rules.settings(texts, example) == []
    assert rules.settings(texts, example.replace("ACR_RAY_SHM=2g\n", "")) == ["ACR_RAY_SHM is missing in env.example"]
    assert rules.settings(texts, example + "ACR_RAY_SHN=2g\n") == ["ACR_RAY_SHN is in env.example and used nowhere"]
    assert len(rules.settings(texts, example.replace("ACR_RAY_SHM=2g", "ACR_RAY_SHM=4g"))) == 1


WRONG = [
    (rules.dangling, "postgres: {condition", "postgresql: {condition", "mlflow depends on postgresql"),
    (rules.dangling, "secrets: [ray_token]", "secrets: [ray_tokens]", "secrets: ray_tokens is used and not declared"),
    (rules.dangling, "- results:/results", "- result:/results", "volumes: results is declared and not used"),
    (rules.dangling, '["s3:/data"]', '["s4:/data"]', "volumes: s4 is used and not declared"),
    (rules.dangling, "networks: [cluster]", "networks: [ray]", "networks: ray is used and not declared"),
    (rules.dangling, "  data:\n", "", "volumes: data is used and not declared"),
    (
        rules.health_checks,
        "s3: {condition: service_started}",
        "bucket: {condition: service_healthy}",
        "waits for bucket",
    ),
    (
        rules.ports,
        "${ACR_RAY_BIND:-127.0.0.1}:${ACR_RAY_MLFLOW",
        "${ACR_RAY_BIND:-0.0.0.0}:${ACR_RAY_MLFLOW",
        "mlflow: p",
    ),
    (rules.ports, '"${ACR_RAY_BIND:-127.0.0.1}:${ACR_RAY_DASHBOARD_PORT:-8265}:8265"', '"8265:8265"', "head: port"),
    (rules.ports, '"${ACR_RAY_BIND:-127.0.0.1}:${ACR_RAY_DASHBOARD_PORT:-8265}:8265"', "{target: 1}", "head: port"),
    (rules.ports, "hostname: head", "network_mode: host", "head: network_mode host"),
    (rules.images, "postgres:17-bookworm", "postgres:latest", "postgres: image postgres:latest has no version"),
    (rules.images, "postgres:17-bookworm", "postgres", "postgres: image postgres has no version"),
    (rules.hardening, "hostname: head", "privileged: true", "head: privileged"),
    (rules.hardening, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "head: keeps the engine's default capabilities"),
    (rules.hardening, "no-new-privileges:true", "label:disable", "head: may gain privileges"),
    (rules.hardening, "read_only: true", "tty: true", "head: can write to its root file system"),
    (rules.hardening, '["s3:/data"]', '["/var/run/docker.sock:/x"]', "s3: controls the engine"),
]


@pytest.mark.parametrize(("rule", "old", "new", "finding"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_rules_catch_one_wrong_line(rule, old, new, finding, tmp_path):
    found = rule(rules.read(changed(BASE, old, new, tmp_path)))
    assert any(sentence.startswith(finding) or finding in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password", "POSTGRES_PASSWORD: hunter2"),
        ("POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password", "X: ${POSTGRES_PASSWORD:-hunter2}"),
        ("psycopg2://mlflow@", "psycopg2://mlflow:hunter2@"),
        ("AWS_DEFAULT_REGION: us-east-1", "AWS_SECRET_ACCESS_KEY: hunter2"),
    ],
)
def test_a_secret_in_a_compose_file_is_caught(old, new, tmp_path):
    wrong = changed(BASE, old, new, tmp_path)
    assert rules.secret_values(wrong.read_text(), rules.read(wrong))


def test_the_build_context_holds_what_is_copied_and_no_more():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "files are let in by name, so that secrets and data can't get into an image by mistake"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = set()
    for file in DOCKERFILES:
        for line in re.findall(r"(?m)^COPY (.+)$", file.read_text()):
            if "--from" not in line:
                copied |= {word for word in line.split()[:-1] if not word.startswith("--")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_the_stack_is_what_the_readme_promises():
    services = rules.read(BASE)["services"]
    assert "--num-cpus=0" in services["head"]["command"]
    for name in ("head", "worker"):
        environment = services[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["volumes"][0] == "results:/results"
    assert services["head"]["environment"]["RAY_JOB_STOP_WAIT_TIME_S"] == "30"
    hosts = rules.defaults(services["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]).split(",")
    assert {"mlflow:*", "localhost:*"} <= set(hosts)


def make_secrets(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(DOCKER / "make-secrets.sh"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})


def test_secrets_are_random_private_and_kept(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make_secrets(first)
    make_secrets(second)
    names = {path.name for path in first.iterdir()}
    assert names == {
        *("ray_token", "postgres_password", "grafana_password", "s3_credentials", "s3_server"),
        *("serve_token", "serve_secret"),
    }
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    private = os.getuid() in (0, 1000)
    for name in names:
        assert stat.S_IMODE((first / name).stat().st_mode) == (0o600 if private else 0o644), name
        assert (first / name).read_text() != (second / name).read_text(), name
        assert len((first / name).read_text()) >= 32
    before = {name: (first / name).read_text() for name in names}
    (first / "postgres_password").unlink()
    assert "ray_token: kept" in make_secrets(first).stdout
    after = {name: (first / name).read_text() for name in names}
    assert {name for name in names if before[name] != after[name]} == {"postgres_password"}
    make_secrets(first, READABLE="1")
    assert stat.S_IMODE((first / "ray_token").stat().st_mode) == 0o644


def test_the_store_and_its_client_agree(tmp_path):
    make_secrets(tmp_path)
    (tmp_path / "s3_server").unlink()
    make_secrets(tmp_path)
    (identity,) = json.loads((tmp_path / "s3_server").read_text())["identities"]
    client = dict(re.findall(r"(\w+) = (\w+)", (tmp_path / "s3_credentials").read_text()))
    (server,) = identity["credentials"]
    assert client == {"aws_access_key_id": server["accessKey"], "aws_secret_access_key": server["secretKey"]}


@pytest.mark.parametrize("script", ["healthcheck.py", "mlflow_health.py"])
def test_health_checks_say_in_one_line_that_nothing_answers(script):
    environment = {**os.environ, "ACR_RAY_AGENT_PORT": "9", "MLFLOW_PORT": "9"}
    done = subprocess.run([sys.executable, DOCKER / script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stdout.startswith("unhealthy: ") and done.stdout.count("\n") == 1 and not done.stderr
