"""What a reviewer finds in MLflow without a click: names, descriptions, columns, results of searches, lineage."""

import json
from types import SimpleNamespace

import mlflow
import pyarrow as pa
import pytest

from acr_ray.formats.files import TRACKED
from acr_ray.formats.tables import FIELDS, TRIALS_VERSION, described, parquet_bytes
from acr_ray.storage import Folder
from acr_ray.tracking import Tracker, quieten
from acr_ray.tracking.experiment import open_experiment
from acr_ray.tracking.model import model_name
from acr_ray.tracking.runs import CHECKPOINT_FILES, numbers
from acr_ray.tracking.searches import SearchLog
from acr_ray.tracking.view import COLUMNS, VIEW
from tests.fakes.models import write_digits_checkpoint


@pytest.fixture
def uri(store):
    quieten()
    return store


def test_the_experiment_has_a_description_and_a_view(uri):
    Tracker(uri).start("train", "a")
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("acr-ray")
    view = json.loads(experiment.tags[VIEW])
    assert view["selectedColumns"] == list(COLUMNS) and "metrics.`acr`" in COLUMNS and "metrics.`hard_share`" in COLUMNS
    note = experiment.tags["mlflow.note.content"]
    assert f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=acr-ray" in note
    client.delete_experiment_tag(experiment.experiment_id, VIEW)  # an experiment that somebody made by hand
    Tracker(uri).start("train", "b")
    assert VIEW in client.get_experiment_by_name("acr-ray").tags


@pytest.mark.parametrize("kind, job", [("train",) * 2, ("certify",) * 2, ("source", "report"), ("trunk", "tune")])
def test_runs_say_what_they_are_and_which_job_made_them(uri, kind, job):
    run_id = Tracker(uri).start(kind, "a")
    tags = mlflow.MlflowClient(uri).get_run(run_id).data.tags
    assert tags["mlflow.source.name"] == f"jobs.{job}" and tags["acr_ray.job"] == kind
    assert len(tags["mlflow.note.content"]) > 40 and "{run_id}" not in tags["mlflow.note.content"]
    assert kind != "train" or f"runs:/{run_id}" in tags["mlflow.note.content"]


def test_a_certification_names_the_model_of_its_training(uri, tmp_path):
    checkpoint = Folder(write_digits_checkpoint(tmp_path / "checkpoint"))
    training = Tracker(uri)
    training_run = training.start("train", "a")
    training.model(checkpoint, CHECKPOINT_FILES)
    certifying, said = Tracker(uri), []
    run_id = certifying.start("certify", "certify a")
    for of in (training_run, None, "0" * 32):
        certifying.uses_model_of(of)
    client = mlflow.MlflowClient(uri)
    model_id = client.get_run(training_run).data.tags["acr_ray.model_id"]
    assert [m.model_id for m in client.get_run(run_id).inputs.model_inputs] == [model_id]
    assert client.get_logged_model(model_id).name != "model" and certifying.ok and not said


def test_a_model_is_called_as_its_recipe():
    def named(name):
        return model_name(SimpleNamespace(recipe={"name": name} if name else None, architecture="resnet110"))

    assert named("digits") == "digits" and named("cifar10-0.25") == "cifar10-0_25" and named(None) == "resnet110"
    assert named("a/b:c%d'e\"f") == "a_b_c_d_e_f"


def test_a_search_has_its_best_trials_numbers_and_stopped_trials_do_not_look_finished(uri, tmp_path):
    out = Folder(tmp_path / "search").make_writable()
    rows = [
        {"trial": "aaaa", "status": "finished", "reason": "", "training.sigma": 0.5, "acr@500": 0.4, "epochs": 9},
        {"trial": "bbbb", "status": "stopped", "reason": "", "training.sigma": 0.25, "acr@500": 0.3, "epochs": 3},
        {"trial": "cccc", "status": "failed", "reason": 900 * "long words", "training.sigma": 1.0, "epochs": 1},
    ]
    # The fields are known by their names, wherever their columns stand.
    table = pa.Table.from_pylist([row | {"trunk": None} for row in rows]).select([3, 0, 1, 2, 4, 5, 6])
    out.write_bytes("trials.parquet", parquet_bytes(described(table, TRIALS_VERSION, {FIELDS: ["training.sigma"]})))
    best = {"trial": "aaaa", "point": {"training.sigma": 0.5}, "metrics": {"acr@500": 0.4, "hard_share": None}}
    out.write_json("summary.json", {"best": best})
    tracker = Tracker(uri)
    parent = tracker.start("tune", "search")
    SearchLog(tracker, out, ["acr@500"]).finish()
    assert tracker.ok
    client = mlflow.MlflowClient(uri)
    run = client.get_run(parent)
    assert run.data.metrics == {"acr.500": 0.4} and run.data.tags["acr_ray.best_trial"] == "aaaa"
    runs = client.search_runs([run.info.experiment_id])
    found = {r.data.tags["acr_ray.trial"]: r for r in runs if r.info.run_id != parent}
    assert {t: r.info.status for t, r in found.items()} == {"aaaa": "FINISHED", "bbbb": "KILLED", "cccc": "FAILED"}
    assert found["bbbb"].info.run_name == "trial-bbbb stopped after 3 epochs"
    assert found["aaaa"].data.params == {"training.sigma": "0.5"}
    assert "(cut: 9000 characters" in found["cccc"].data.tags["acr_ray.reason"]


def test_a_trial_that_mlflow_took_only_at_the_second_try_is_known_by_its_run(uri, tmp_path, monkeypatch):
    tracker, out = Tracker(uri), Folder(tmp_path / "search").make_writable()
    tracker.start("tune", "search")
    answers = iter([ConnectionError("away for a moment")])

    def opened(*given):
        for error in answers:
            raise error
        return open_experiment(*given)

    monkeypatch.setattr("acr_ray.tracking.tracker.open_experiment", opened)
    monkeypatch.setattr("acr_ray.tracking.backlog.AGAIN", 0.0)  # it is asked again at the next call
    SearchLog(tracker, out, [])({}, {"trial": "aaaa", "status": "finished", "epoch": 1})
    run_id = out.read_json(TRACKED)["aaaa"]
    assert mlflow.MlflowClient(uri).get_run(run_id).data.tags["acr_ray.trial"] == "aaaa"


def test_nested_numbers_of_a_summary_become_metrics_and_nothing_else_does():
    summary = {
        "acr": 0.5,
        "images": 3,
        "n": 10,
        "certificate": "one-class",
        "certified_accuracy": {"0.5": 0.25},
        "certificates": {"two-class": {"acr": 0.75, "derived": True, "acr_interval": [0.5, 1.0]}},
    }
    expected = {"acr": 0.5, "images": 3, "certified_accuracy.0.5": 0.25, "certificates.two-class.acr": 0.75}
    assert numbers(summary) == expected
