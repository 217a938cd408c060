"""The files in cluster/, read for the checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
CLUSTER = ROOT / "cluster"
RAY_UP = sorted((CLUSTER / "ray-up").glob("*.yaml"))
KUBERAY = CLUSTER / "kuberay"
SCHEMAS = ROOT.parent / "shared" / "kuberay"
SCRIPTS = [*sorted((CLUSTER / "ray-up").glob("*.sh")), CLUSTER / "slurm" / "acr-ray.sbatch"]


def ray_version() -> str:
    return re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def manifests(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def changed(path: Path, line: str, to: str) -> str:
    """A file's text with one line changed, for tests that a check catches it; `line` has to be there."""
    text = path.read_text()
    assert line in text, f"{path.name} has no {line!r}: the test has to follow the file"
    return text.replace(line, to)


def pod_templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates within a manifest: a cluster's head and workers, a job's submitter, a deployment's."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "RayJob":
        return [spec["submitterPodTemplate"], *pod_templates({"kind": "RayCluster", "spec": spec["rayClusterSpec"]})]
    if manifest["kind"] == "RayService":
        return pod_templates({"kind": "RayCluster", "spec": spec["rayClusterConfig"]})
    if manifest["kind"] == "RayCluster":
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        return [group["template"] for group in groups]
    return [spec["template"]] if manifest["kind"] == "Deployment" else []


def walk(value: Any):
    """Every mapping within a document."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from walk(child)
    elif isinstance(value, list):
        for child in value:
            yield from walk(child)


def strict(schema: Any) -> Any:
    """A JSON schema of a custom resource, with keys it does not name refused: the API server drops them silently."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        open_ended = found.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in found
        if not open_ended:
            found["additionalProperties"] = False
    if found.pop("x-kubernetes-int-or-string", False):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return found
