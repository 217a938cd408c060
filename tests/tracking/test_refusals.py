"""What MLflow does not take is made fit or set aside; an experiment or run that was deleted is said."""

import json

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from acr_ray.storage import Folder
from acr_ray.tracking import Tracker, quieten
from acr_ray.tracking.advice import advice
from acr_ray.tracking.names import KEY, PARAM, TAG, fit_key, fit_keys, shortened
from jobs import report
from tests.reporting.making import certificates


@pytest.fixture
def uri(store, monkeypatch):
    quieten()
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return store


ODD = ["acc@5", "loss%", "a//b", "/root", "../up", "..", ".", "", "ünïcode ok", "x" * 300, "a\nb", "p(A)", "trailing/"]


@pytest.mark.parametrize("name", ODD)
def test_any_name_becomes_one_that_mlflow_takes(name):
    from mlflow.utils.validation import _validate_metric_name, _validate_param

    fit = fit_key(name)
    _validate_metric_name(fit)
    _validate_param(fit, "1")
    assert fit_key(fit) == fit and len(fit) <= KEY


def test_names_stay_apart():
    assert fit_key("acc@5") == "acc.5" and fit_key("loss") == "loss" and fit_key("a/b:c d-e_f.g") == "a/b:c d-e_f.g"
    assert fit_keys({"a@b": 1, "a.b": 2, "a%": 3, "a#": 4}) == {"a.b_2": 1, "a.b": 2, "a_": 3, "a__2": 4}
    long = fit_keys({"x" * 400: 1, "x" * 401: 2})
    assert len(long) == 2


def test_what_is_cut_says_so():
    assert shortened("abc", 3) == "abc"
    cut = shortened("x" * 9000, PARAM)
    assert len(cut) == PARAM and cut.startswith("xxx") and " … (cut: 9000 characters, SHA-256 " in cut[-70:]
    assert cut[-17:] != shortened("x" * 9001, PARAM)[-17:]


def test_a_run_whose_names_and_values_do_not_fit_is_logged_whole(uri):
    said = []
    tracker = Tracker(uri, said.append)
    run_id = tracker.start("train", "a")
    tracker.params({"lr@0": 0.1, "long": "y" * 7000, "ok": 1})
    for epoch in range(3):
        tracker.metrics({"loss": 1.0, "acc@5": 0.5, "bad\tname": np.float32(2)}, epoch)
    tracker.tags({"acr_ray.note": "z" * 9000})
    tracker.dataset("digits", "f" * 64, "None", "training")
    tracker.finish()
    run = mlflow.MlflowClient(uri).get_run(run_id)
    assert not said and tracker.ok and run.info.status == "FINISHED"
    assert set(run.data.metrics) == {"loss", "acc.5", "bad_name"}
    assert run.data.params["lr.0"] == "0.1" and "(cut: 7000 characters" in run.data.params["long"]
    assert "(cut: 9000 characters" in run.data.tags["acr_ray.note"] and len(run.data.tags["acr_ray.note"]) <= TAG
    (data,) = run.inputs.dataset_inputs
    assert json.loads(data.dataset.profile)["sha256"] == "f" * 64


def test_one_refused_value_is_named_once_and_the_others_are_there(uri):
    said = []
    tracker = Tracker(uri, said.append)
    run_id = tracker.start("train", "a")
    refuse, client = tracker._client.log_batch, tracker._client

    def log_batch(run, metrics=(), params=(), **others):
        if any(entity.key == "odd" for entity in (*metrics, *params)):
            raise MlflowException("Invalid value for odd", error_code=1000)
        refuse(run, metrics=metrics, params=params, **others)

    client.log_batch = log_batch
    for epoch in range(3):
        tracker.metrics({"loss": 1.0, "odd": 2.0, "accuracy": 0.5}, epoch)
    tracker.params({"odd": 1, "sigma": 0.5})
    tracker.metrics({"words": "many"})
    tracker.finish()
    run = mlflow.MlflowClient(uri).get_run(run_id)
    assert set(run.data.metrics) == {"loss", "accuracy"} and run.data.params == {"sigma": "0.5"}
    assert len(mlflow.MlflowClient(uri).get_metric_history(run_id, "loss")) == 3
    assert run.info.status == "FINISHED" and tracker.ok
    assert ["metrics odd" in said[0], "params odd" in said[1], "words" in said[2], len(said)] == [True, True, True, 3]
    assert all("check the address" not in line and "\n" not in line for line in said)


def names_of(uri):
    client = mlflow.MlflowClient(uri)
    found = client.search_experiments(view_type=mlflow.entities.ViewType.ALL)
    return {e.name: len(client.search_runs([e.experiment_id])) for e in found if e.name != "Default"}


def test_a_deleted_experiment_is_said_with_what_to_do(uri):
    Tracker(uri).start("train", "a")
    client = mlflow.MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name("acr-ray").experiment_id)
    said = []
    tracker = Tracker(uri, said.append)
    assert tracker.start("train", "b") is None
    tracker.metrics({"loss": 1.0})
    assert len(said) == 1 and "the experiment acr-ray (id 1) was deleted in MLflow" in said[0]
    assert (
        "--experiment NAME" in said[0] and "mlflow experiments restore" in said[0] and "check the addr" not in said[0]
    )
    other = Tracker(uri, said.append, experiment="mine")
    assert other.start("train", "c") and names_of(uri)["mine"] == 1 and len(said) == 1


def test_the_experiment_is_chosen_by_option_then_by_environment(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    Tracker(uri).start("train", "a")
    Tracker(uri, experiment="by option").start("train", "b")
    assert names_of(uri) == {"from the environment": 1, "by option": 1}
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    made = mlflow.MlflowClient(uri).create_experiment("by id")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
    Tracker(uri).start("train", "c")
    assert names_of(uri)["by id"] == 1


def test_jobs_take_the_experiment(uri, tmp_path):
    path = certificates(tmp_path / "a.parquet", [900, 800])
    report.main([path, "--out", str(tmp_path / "out"), "--tracking-uri", uri, "--experiment", "mine"])
    assert names_of(uri)["mine"] >= 2 and "acr-ray" not in names_of(uri)


def test_a_deleted_run_is_followed_by_a_new_one(uri):
    first = Tracker(uri).start("train", "a")
    client = mlflow.MlflowClient(uri)
    client.delete_run(first)
    said = []
    tracker = Tracker(uri, said.append)
    second = tracker.start("train", "a", first)
    tracker.metrics({"loss": 1.0})
    assert (
        second not in (None, first)
        and tracker.ok
        and said == [f"the MLflow run {first} was deleted; logging to a new one"]
    )


def test_a_run_deleted_meanwhile_is_said_once(uri):
    said = []
    tracker = Tracker(uri, said.append)
    run_id = tracker.start("train", "a")
    mlflow.MlflowClient(uri).delete_run(run_id)
    for epoch in range(5):
        tracker.metrics({"loss": 1.0}, epoch)
    tracker.files(Folder("/nowhere"), [])
    assert len(said) == 1 and "restore it in MLflow" in said[0]


def test_advice_goes_by_the_error():
    assert "--experiment" in advice("sqlite:///x.db", "the experiment acr-ray (id 1) was deleted in MLflow")
    assert "db upgrade" in advice("sqlite:///x.db", "Detected out-of-date database schema (found version ...)")
    assert "written" in advice("sqlite:///x.db", "attempt to write a readonly database")
    assert "restore" in advice("http://x", "Run with id=3 not found")
    assert "address" in advice("http://x", "API request to endpoint /api/2.0/mlflow/runs failed with error code 404")
    assert "name of your own" in advice(
        "http://x", "INVALID_PARAMETER_VALUE: Invalid value \"a@b\" for parameter 'name'"
    )
