"""The demo's jobs against MLflow on PostgreSQL and S3, whose server is killed and comes back meanwhile."""

import json
import re

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest

from acr_ray.tracking import quieten
from tests.fakes.jobs import epochs_done, run, start, wait_for
from tests.services.stack import S3, MlflowServer, Postgres

pytestmark = [pytest.mark.services, pytest.mark.ray, pytest.mark.timeout(1500)]

EPOCHS = 40
TRAIN = ("digits-gaussian", "--workers", 2, "--training.epochs", EPOCHS, "--training.e_t", 1)


@pytest.fixture(scope="module")
def s3():
    store = S3()
    yield store
    store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, s3):
    folder = tmp_path_factory.mktemp("services")
    postgres = Postgres()
    proxied = ("--serve-artifacts", "--artifacts-destination", "s3://acr-ray")
    running = MlflowServer(postgres.uri, s3.environment, folder / "mlflow.log", *proxied)
    yield running
    running.close()
    postgres.close()


@pytest.fixture(scope="module")
def client(server):
    quieten()
    return mlflow.MlflowClient(server.uri)


@pytest.fixture(scope="module")
def trained(head, server, tmp_path_factory):
    """A training whose MLflow was away from an early epoch to a late one. Returns its folder and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "train"
    process = start("train", *TRAIN, "--out", out, "--tracking-uri", server.uri, head=head)
    wait_for(lambda: epochs_done(out) >= 3, process=process)
    server.kill()
    wait_for(lambda: epochs_done(out) >= 20, process=process)
    server.start(wait=False)
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, printed + errors
    return out, printed


def test_no_epoch_is_missing_after_the_server_was_away(trained, client, s3):
    out, printed = trained
    said = [line for line in printed.splitlines() if "MLflow" in line]
    assert len(said) == 2 and "continuing without it" in said[0] and "answers again" in said[1], said
    run_id = json.loads((out / "run.json").read_text())["mlflow_run_id"]
    logged = client.get_run(run_id)
    assert logged.info.status == "FINISHED"
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    history = client.get_metric_history(run_id, "loss")
    assert len(records) == EPOCHS
    assert sorted((m.step, m.value) for m in history) == [(r["epoch"], r["loss"]) for r in records]
    assert logged.data.params["recipe"] == "digits-gaussian" and len(logged.inputs.dataset_inputs) == 1
    paths = {f.path for f in client.list_artifacts(run_id)} | {
        f.path for f in client.list_artifacts(run_id, "checkpoint")
    }
    assert {"summary.json", "metrics.jsonl", "checkpoint/model.safetensors", "checkpoint/model.json"} <= paths
    (key,) = [k for k in s3.names() if k.endswith(f"{run_id}/artifacts/checkpoint/model.safetensors")]
    stored = s3.client.get_object(Bucket="acr-ray", Key=key)["Body"].read()
    assert stored == (out / "checkpoint" / "model.safetensors").read_bytes()


def test_a_certification_from_the_server_is_there_in_whole_too(trained, head, server, client, tmp_path):
    run_id = json.loads((trained[0] / "run.json").read_text())["mlflow_run_id"]
    out = tmp_path / "certify"
    arguments = ("certify", f"runs:/{run_id}", "--out", out, "--n", 3000, "--max-images", 60)
    process = start(*arguments, "--tracking-uri", server.uri, head=head)
    wait_for(
        lambda: bool(list((out / "ledger").glob("*.jsonl"))) if (out / "ledger").exists() else False, process=process
    )
    server.kill()
    server.start(wait=False)
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, printed + errors
    summary = json.loads((out / "summary.json").read_text())
    record = json.loads((out / "run.json").read_text())
    logged = client.get_run(record["mlflow_run_id"])
    assert record["tracked"] and logged.info.status == "FINISHED" and logged.data.metrics["acr"] == summary["acr"]
    assert logged.data.tags["acr_ray.training_run_id"] == run_id
    path = mlflow.artifacts.download_artifacts(
        run_id=record["mlflow_run_id"], artifact_path="certificates.parquet", tracking_uri=server.uri
    )
    assert pq.read_table(path).equals(pq.read_table(out / "certificates.parquet"))
    run("report", f"a=runs:/{record['mlflow_run_id']}", "--out", tmp_path / "report", "--tracking-uri", server.uri)
    found = json.loads((tmp_path / "report" / "summary.json").read_text())["sources"][0]
    assert np.isclose(found["acr"], summary["acr"]) and found["images"] == 60
    names = {
        f.path
        for f in client.list_artifacts(
            client.search_runs(
                [client.get_experiment_by_name("acr-ray").experiment_id], "tags.`acr_ray.job` = 'report'"
            )[0].info.run_id
        )
    }
    assert {"report.html", "table.md"} <= names


def test_a_server_that_never_comes_back_gets_it_by_the_same_command(trained, head, server, client, tmp_path):
    few = ("digits-gaussian", "--training.epochs", 30, "--training.e_t", 1, "--out", tmp_path / "t")
    process = start("train", *few, "--tracking-uri", server.uri, head=head)
    wait_for(lambda: epochs_done(tmp_path / "t") >= 2, process=process)
    server.kill()
    try:
        printed, errors = process.communicate(timeout=600)
    finally:
        server.start()
    assert process.returncode == 0, printed + errors
    record = json.loads((tmp_path / "t" / "run.json").read_text())
    assert not record["tracked"] and (tmp_path / "t" / "summary.json").exists()
    printed, _ = run("train", *few, "--tracking-uri", server.uri, head=head)
    assert not re.search(r"^epoch", printed, re.M)
    assert len(client.get_metric_history(record["mlflow_run_id"], "loss")) == 30
    assert client.get_run(record["mlflow_run_id"]).info.status == "FINISHED"


def test_a_name_that_the_server_does_not_expect_is_a_line_from_doctor_and_job(head, tmp_path):
    picky = MlflowServer(
        f"sqlite:///{tmp_path}/mlflow.db", {}, tmp_path / "mlflow.log", "--allowed-hosts", "mlflow.example"
    )
    try:
        printed, errors = run("doctor", "--tracking-uri", picky.uri, head=head, code=1)
        (line,) = [line for line in printed.splitlines() if line.startswith("FAILED")]
        assert "mlflow" in line and "403" in line and "--allowed-hosts" in line
        few = ("--training.epochs", 2, "--training.milestones", "", "--training.e_t", 1)
        printed, _ = run(
            "train", "digits-gaussian", *few, "--out", tmp_path / "t", "--tracking-uri", picky.uri, head=head
        )
        (line,) = [line for line in printed.splitlines() if "MLflow" in line]
        assert "403" in line and "--allowed-hosts" in line and "continuing without it" in line
    finally:
        picky.close()
