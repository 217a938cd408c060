"""The model registry, what MLflow's page of a model shows, and the logged model where the package is not installed."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pytest

from acr_ray.formats.files import CHECKPOINT
from acr_ray.models import load_checkpoint
from acr_ray.settings import UserError
from acr_ray.storage import Folder
from acr_ray.tracking import Tracker
from acr_ray.tracking.own_wheel import write_wheel
from acr_ray.tracking.registry import find_version
from acr_ray.tracking.runs import CHECKPOINT_FILES, resolve_checkpoint
from tests.fakes.jobs import ROOT, environment, wait_for
from tests.fakes.models import write_digits_checkpoint


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_digits_checkpoint(tmp_path_factory.mktemp("model") / "digits")


@pytest.fixture(scope="module")
def trained(uri, checkpoint):
    """A run with its model in the registry. Returns the tracker."""
    tracker = Tracker(uri)
    tracker.start("train", "digits")
    tracker.files(Folder(checkpoint), list(CHECKPOINT_FILES), CHECKPOINT)
    tracker.model(Folder(checkpoint), CHECKPOINT_FILES)
    assert tracker.register("digits") == "1" and tracker.ok
    return tracker


def test_a_version_and_an_alias_are_found(trained, uri, checkpoint):
    client = mlflow.MlflowClient(uri)
    client.set_registered_model_alias("digits", "live", "1")
    for name, alias in (("models:/digits/1", ""), ("models:/digits@live", "live")):
        found = find_version(name, uri)
        assert (found.version, found.run_id, found.alias) == ("1", trained.run_id, alias)
        location, run_id = resolve_checkpoint(name, uri)
        assert run_id == trained.run_id and load_checkpoint(location)[1] == load_checkpoint(str(checkpoint))[1]
    version = client.get_model_version("digits", "1")
    assert version.source.startswith("models:/m-") and version.run_id == trained.run_id


def test_the_same_run_is_one_version(trained):
    assert trained.register("digits") == "1"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("models:/digits", "allowed"),
        ("models:/digits/latest", "allowed"),
        ("models:/digits/9", "not in the registry"),
        ("models:/digits@gone", "not in the registry"),
        ("models:/nothing@live", "not in the registry"),
    ],
)
def test_what_is_not_there_is_one_line(trained, uri, name, says):
    with pytest.raises(UserError, match=says):
        find_version(name, uri)


def test_no_store_is_made_to_look_for_a_model(tmp_path):
    with pytest.raises(UserError, match="no store"):
        find_version("models:/digits@live", f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_no_run_made_is_refused(trained, uri):
    client = mlflow.MlflowClient(uri)
    client.create_registered_model("other")
    client.create_model_version("other", "s3://bucket/model")
    with pytest.raises(UserError, match="made by no run"):
        find_version("models:/other/1", uri)


def test_metrics_of_a_certification_are_the_models_too(trained, uri):
    tracker = Tracker(uri)
    tracker.start("certify", "digits")
    tracker.uses_model_of(trained.run_id)
    tracker.dataset("digits-test", "0" * 64, "none", "certification")
    tracker.metrics({"acr": 0.5, "certified_accuracy@0.5": 0.25, "p_a_quantile.0.5": 0.75}, linked=True)
    tracker.metrics({"other": 1.0})
    tracker.finish()
    assert tracker.ok
    client = mlflow.MlflowClient(uri)
    model_id = client.get_run(trained.run_id).data.tags["acr_ray.model_id"]
    model = client.get_logged_model(model_id)
    assert {m.key: m.value for m in model.metrics} == {
        "acr": 0.5,
        "certified_accuracy.0.5": 0.25,
        "p_a_quantile.0.5": 0.75,
    }
    assert {(m.dataset_name, m.dataset_digest) for m in model.metrics} == {("digits-test", "0" * 36)}
    assert model.params["sigma"] == "0.25" and model.params["dataset"] == "digits"
    assert client.get_run(tracker.run_id).data.metrics["other"] == 1.0


def test_the_wheel_is_this_package_and_always_the_same(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.mkdir()
    first, second = (write_wheel(path).read_bytes() for path in paths)
    assert first == second
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(site)]
    done = subprocess.run([*command, str(write_wheel(tmp_path))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = "import acr_ray.tracking.smoothed_model as m; print(m.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert told.stdout.startswith(str(site)), told.stderr
    assert len(zipfile.ZipFile(write_wheel(tmp_path)).namelist()) > 200


def test_the_logged_model_says_what_it_needs(trained, uri):
    client = mlflow.MlflowClient(uri)
    model_id = client.get_run(trained.run_id).data.tags["acr_ray.model_id"]
    folder = mlflow.artifacts.download_artifacts(f"models:/{model_id}", tracking_uri=uri)
    lines = Path(folder, "requirements.txt").read_text().split()
    assert lines[0].startswith("code/acr_ray-") and os.path.isfile(os.path.join(folder, lines[0]))
    assert all(re.fullmatch(r"[\w-]+==[\d.]+\w*", line) for line in lines[1:]) and "torch" in " ".join(lines)
    assert os.path.isfile(os.path.join(folder, "input_example.json"))


@pytest.mark.slow
def test_mlflow_serves_the_model(trained, uri, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", "models:/digits/1"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it calls uvicorn by its name
    env = environment() | {"MLFLOW_TRACKING_URI": uri, "PATH": path}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*command, "-p", str(port)], cwd=ROOT, env=env, stdout=log, stderr=log)
        try:

            def up() -> bool:
                assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
                try:
                    return urllib.request.urlopen(f"http://127.0.0.1:{port}/ping").status == 200
                except OSError:
                    return False

            wait_for(up, 120, None)

            def ask(values):
                body = json.dumps({"inputs": values.tolist(), "params": {"n": 200}}).encode()
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
                return json.load(urllib.request.urlopen(request))

            images = np.random.default_rng(0).random((2, 1, 8, 8))
            found = ask(images)["predictions"]
            assert len(found) == 2 and set(found[0]) == {"predicted", "abstained", "radius"}
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(images * 255)
            assert refused.value.code == 400
        finally:
            process.terminate()
            process.wait(30)
