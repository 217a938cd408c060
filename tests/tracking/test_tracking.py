"""MLflow: what a run leaves there, and that nothing is lost where it can't be reached."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import FileInfo

from acr_ray.data import open_images
from acr_ray.models import load_checkpoint
from acr_ray.settings import UserError
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.storage import Folder
from acr_ray.tracking import Tracker, quieten
from acr_ray.tracking.model import model_name
from acr_ray.tracking.runs import CHECKPOINT_FILES, EpochLog, numbers, resolve_checkpoint, scalars, with_run
from tests.fakes.jobs import ROOT, environment, run
from tests.fakes.models import write_digits_checkpoint


@pytest.fixture
def uri(store):
    quieten()
    return store


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_digits_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint")


def test_a_run_is_found_with_all_that_was_logged(uri, tmp_path):
    tracker = Tracker(uri)
    run_id = tracker.start("train", "my run")
    tracker.params({"training.sigma": 0.5, "milestones": (30, 50)})
    tracker.params({"training.sigma": 0.5})
    tracker.dataset("digits-train", "f" * 64, "None", "training")
    (tmp_path / "summary.json").write_text("{}")
    tracker.files(Folder(tmp_path), ["summary.json", "absent.json"])
    tracker.finish()
    assert tracker.ok
    found = mlflow.MlflowClient(uri).get_run(run_id)
    assert found.data.params == {"training.sigma": "0.5", "milestones": "(30, 50)"}
    assert found.info.status == "FINISHED" and found.info.run_name == "my run"
    assert found.data.tags["acr_ray.job"] == "train"
    assert found.inputs.dataset_inputs[0].dataset.name == "digits-train"
    assert [file.path for file in mlflow.MlflowClient(uri).list_artifacts(run_id)] == ["summary.json"]


def test_an_epoch_is_logged_once_whoever_logs_it(uri):
    records = [{"epoch": e, "loss": 1.0 / (e + 1), "attack_active": [0.9, 0.8], "x_histogram": [1]} for e in range(6)]
    first = Tracker(uri)
    run_id = first.start("train", "a")
    log = EpochLog(first)
    for record in records[:4]:
        log(record)
    second = Tracker(uri)
    assert second.start("train", "a", run_id) == run_id
    log = EpochLog(second)
    for record in records:
        log(record)
    client = mlflow.MlflowClient(uri)
    history = client.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(r["epoch"], r["loss"]) for r in records]
    assert len(client.get_metric_history(run_id, "attack_active.2")) == 6
    assert "x_histogram" not in scalars(records[0])


def test_a_run_id_that_the_store_does_not_have_gives_a_new_run(uri):
    tracker = Tracker(uri)
    assert tracker.start("train", "a", "0" * 32) not in (None, "0" * 32)
    assert tracker.ok


def test_the_model_comes_back_without_unpickling(uri, checkpoint, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    tracker = Tracker(uri)
    run_id = tracker.start("train", "a")
    tracker.files(Folder(checkpoint), list(CHECKPOINT_FILES), "checkpoint")
    tracker.model(Folder(checkpoint), CHECKPOINT_FILES)
    assert tracker.ok
    mlflow.set_tracking_uri(uri)
    artifacts = Path(uri.removeprefix("sqlite:///")).parent / "mlruns"
    before = sorted(artifacts.rglob("*"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    mlflow.pyfunc.load_model(str(next(artifacts.rglob("MLmodel")).parent))  # where it lies, not a copy
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/{model_name(load_checkpoint(str(checkpoint))[1])}")
    images = open_images("digits", None, "test").load(range(3), None)
    found = loaded.predict(images.numpy(), params={"n": 200, "n0": 20, "seed": 4})
    torch.set_num_threads(1)
    model, card = load_checkpoint(str(checkpoint))
    smoothed = SmoothedClassifier(model, 10, card.sigma, seed=4, grid=16)
    for number, row in enumerate(found.itertuples()):
        expected = smoothed.certify(images[number], n0=20, n=200, name=f"request/{number}")
        assert row.predicted == (-1 if expected.abstained else expected.predicted)
        assert row.abstained == expected.abstained and row.radius <= expected.radius
    assert np.issubdtype(found["predicted"].dtype, np.integer)
    assert before and sorted(artifacts.rglob("*")) == before  # reading leaves the run as it was
    for wrong, said in (
        (images.numpy() * 255, "image 0: has values from 0 to 255, must lie in"),
        (images.numpy() * 2 - 1, "image 0: has values from -1 to 1"),
        (np.concatenate([images.numpy(), images.numpy() * 3]), "image 3: has values from 0 to 3"),
    ):
        with pytest.raises(mlflow.MlflowException, match=said) as caught:
            loaded.predict(wrong)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    for params in ({"n": 0}, {"alpha": 1.0}, {"seed": -1}, {"n0": 0}):
        with pytest.raises(mlflow.MlflowException, match=f"{next(iter(params))}: "):
            loaded.predict(images.numpy(), params=params)
    location, training_run = resolve_checkpoint(f"runs:/{run_id}", uri)
    assert training_run == run_id and load_checkpoint(location)[1].sha256 == card.sha256


@pytest.mark.slow
def test_logging_a_model_prints_no_warnings(uri, checkpoint):
    code = (
        "from acr_ray.storage import Folder\nfrom acr_ray.tracking import Tracker\n"
        "from acr_ray.tracking.runs import CHECKPOINT_FILES\n"
        f"tracker = Tracker({uri!r})\ntracker.start('train', 'a')\n"
        f"tracker.model(Folder({str(checkpoint)!r}), CHECKPOINT_FILES)\nassert tracker.ok"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr + done.stdout


def test_a_server_that_refuses_is_said_once_and_costs_nothing(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    said = []
    tracker = Tracker(f"http://127.0.0.1:{port}", said.append)
    quieten()
    started = time.monotonic()
    assert tracker.start("train", "a") is None
    for _ in range(50):
        tracker.metrics({"loss": 1.0})
        tracker.params({"a": 1})
    tracker.finish()
    assert len(said) == 1 and "continuing without it" in said[0] and "\n" not in said[0]
    assert not tracker.ok and time.monotonic() - started < 60


def test_no_tracking_says_nothing():
    said = []
    tracker = Tracker(None, said.append)
    assert tracker.start("train", "a") is None
    tracker.finish()
    assert not said and not tracker.ok


def test_processes_that_start_together_share_a_new_store(uri):
    """Several creating the database at once were seen to break it."""
    ids, threads = [], []
    for number in range(3):
        threads.append(threading.Thread(target=lambda n=number: ids.append(Tracker(uri).start("train", f"r{n}"))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 3 and None not in ids


def test_numbers_of_a_summary():
    summary = {"acr": 0.5, "certified_accuracy": {"0": 0.9}, "images": 5, "schema_version": 1, "model_sha256": "x"}
    assert numbers(summary) == {"acr": 0.5, "certified_accuracy.0": 0.9, "images": 5}


@pytest.mark.ray
def test_jobs_without_a_server_finish_and_are_logged_later(head, tmp_path, uri):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    few = ("--training.epochs", 2, "--training.milestones", "", "--training.e_t", 1)
    arguments = ("train", "digits-gaussian", "--out", tmp_path / "train", *few)
    printed, errors = run(*arguments, "--tracking-uri", nobody, head=head)
    warnings = [line for line in (printed + errors).splitlines() if "MLflow" in line]
    assert len(warnings) == 1 and "continuing without it" in warnings[0]
    assert (tmp_path / "train" / "summary.json").exists()
    assert len((tmp_path / "train" / "metrics.jsonl").read_text().splitlines()) == 2
    before = (tmp_path / "train" / "checkpoint" / "model.safetensors").read_bytes()
    printed, _ = run(*arguments, "--tracking-uri", uri, head=head)
    assert "epoch" not in printed
    assert (tmp_path / "train" / "checkpoint" / "model.safetensors").read_bytes() == before
    client = mlflow.MlflowClient(uri)
    (logged,) = client.search_runs([client.get_experiment_by_name("acr-ray").experiment_id])
    assert len(client.get_metric_history(logged.info.run_id, "loss")) == 2
    certify = ("certify", f"runs:/{logged.info.run_id}", "--out", tmp_path / "certify", "--n", 100, "--max-images", 3)
    run(*certify, "--tracking-uri", uri, head=head)
    summary = json.loads((tmp_path / "certify" / "summary.json").read_text())
    assert summary["training_run_id"] == logged.info.run_id
    certified = client.get_run(summary["mlflow_run_id"])
    assert certified.data.tags["acr_ray.training_run_id"] == logged.info.run_id
    assert certified.data.metrics["acr"] == summary["acr"]


def test_the_machines_load_is_logged_while_a_run_works(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db")
    tracker.start("train", "x")
    with_run(tracker, lambda: time.sleep(2))
    tracker.finish()
    metrics = mlflow.MlflowClient(tracker.uri).get_run(tracker.run_id).data.metrics
    assert metrics["system/system_memory_usage_megabytes"] > 0 and tracker.ok
    off = Tracker(None)
    with_run(off, lambda: None)


@pytest.mark.parametrize(
    "name, folder",
    [("../../s", False), ("/tmp/s", False), ("checkpoint/../../s", False), ("other/s", False), ("checkpoint/a", True)],
)
def test_an_artefact_listing_stays_inside_and_ends(name, folder, uri, tmp_path, monkeypatch):
    run_id, fetched = Tracker(uri).start("train", "a stranger's"), []
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda **options: fetched.append(options))

    def listing(self, run_id, path=None):
        return [FileInfo(f"{path}/a" if folder else name, folder, 3)]

    monkeypatch.setattr(mlflow.MlflowClient, "list_artifacts", listing)
    with pytest.raises(UserError, match=f"runs:/{run_id}: MLflow sqlite"):
        resolve_checkpoint(f"runs:/{run_id}", uri)
    assert fetched == []
