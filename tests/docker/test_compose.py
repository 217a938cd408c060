"""The whole stack: a training and a certification by ray job submit, results in /results, runs and files in MLflow."""

from __future__ import annotations

import json
import os

import pytest

from tests.docker import building, stack

REASON = stack.missing()
pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(bool(REASON), reason=REASON or "the stack can run"),
]
SUBMIT = ("ray", "job", "submit", "--", "python", "-m")
ASK = """
import json, mlflow
client = mlflow.MlflowClient()
runs = client.search_runs([client.get_experiment_by_name("acr-ray").experiment_id])
found = {r.data.tags["acr_ray.job"]: [r.info.status, r.info.run_id, r.info.artifact_uri] for r in runs}
path = client.download_artifacts(found["train"][1], "summary.json", "/tmp")
print(json.dumps(found | {"summary": json.load(open(path))}))
"""
OBJECTS = """
import boto3
store = boto3.client("s3", endpoint_url="http://s3:8333")
print(*(entry["Key"] for entry in store.list_objects_v2(Bucket="mlflow").get("Contents", [])), sep="\\n")
"""


@pytest.fixture(scope="module")
def running():
    keep = os.environ.get(building.KEEP)
    os.environ[building.KEEP] = "1"  # images that make images-test left are taken as they are
    try:
        building.make_images()
        stack.make_standins()
        with stack.Stack() as up:
            yield up
    finally:
        if not keep:
            del os.environ[building.KEEP]
            building.remove_images(stack.POSTGRES, stack.S3, building.NODE, building.MLFLOW, building.BASE)


def test_a_job_through_the_whole_stack(running):
    train = ("jobs.train", "digits-gaussian", "--out", "/results/run", "--training.epochs", 2, "--workers", 2)
    assert "succeeded" in running.inside("head", *SUBMIT, *train, seconds=600)
    certify = ("jobs.certify", "/results/run", "--out", "/results/cert", "--max-images", 20, "--n", 1000, "--actors", 2)
    assert "succeeded" in running.inside("head", *SUBMIT, *certify, seconds=600)

    summary = json.loads(running.inside("worker", "cat", "/results/cert/summary.json", number=2))
    assert summary["images"] == 20

    text = running.inside("worker", "python", "-c", ASK)
    found = json.loads(text.strip().splitlines()[-1])
    assert found["train"][0] == found["certify"][0] == "FINISHED"
    assert found["train"][2].startswith("mlflow-artifacts:"), "clients must go through the server"
    assert found["summary"]["schema_version"]

    stored = running.inside("mlflow", "python", "-c", OBJECTS).splitlines()
    assert [name for name in stored if found["train"][1] in name and name.endswith("summary.json")]


def test_the_head_gives_no_work_away(running):
    code = "import ray; ray.init(); print(*sorted((n['Resources'].get('CPU', 0) > 0) for n in ray.nodes()))"
    assert running.inside("head", "python", "-c", code).strip().splitlines()[-1] == "False True True"


def test_ray_asks_for_the_token(running):
    right = running.inside("head", "ray", "job", "list")
    assert "SUCCEEDED" in right
    wrong = running.inside("head", "ray", "job", "list", code=1, RAY_AUTH_TOKEN="wrong" * 10)
    assert "token is invalid" in wrong or "Invalid authentication token" in wrong


def test_containers_are_closed(running):
    for service in ("head", "worker", "mlflow"):
        assert running.inside(service, "id", "-u").strip() == "1000"
        assert "Read-only file system" in running.inside(service, "touch", "/opt/x", code=1)
    status = running.inside("worker", "grep", "CapEff", "/proc/1/status")
    assert int(status.split()[1], 16) == 0
    for service in ("postgres", "s3"):  # in a network of their own
        code = f"import socket; socket.create_connection(('{service}', 1), 3)"
        assert "Name or service not known" in running.inside("worker", "python", "-c", code, code=1)


def test_secrets_are_in_no_container_settings(running):
    values = [path.read_text().strip() for path in running.secrets.iterdir() if "\n" not in path.read_text().strip()]
    assert len(values) == 3
    for service in ("head", "worker", "mlflow", "postgres"):
        settings = running.call("podman", "inspect", running.name(service))
        logs = running.call("podman", "logs", running.name(service), code=None)
        assert not [value for value in values if value in settings or value in logs], service
