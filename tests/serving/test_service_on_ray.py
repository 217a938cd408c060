"""The service on Ray Serve: replicas are killed and the model is replaced while clients ask."""

import json
import os
import re
import signal
import threading
import urllib.request

import pytest

from acr_ray.cli.commands import certify, gate
from acr_ray.cli.session import RunOptions
from acr_ray.formats.files import CHECKPOINT
from acr_ray.models import load_checkpoint
from acr_ray.serving.seeds import read_secret
from acr_ray.settings.serve import ServeSettings
from acr_ray.storage import Folder
from acr_ray.tracking import Tracker
from acr_ray.tracking.runs import CHECKPOINT_FILES
from docs.examples.serve_client import ask
from tests.fakes.jobs import below, start, wait_for
from tests.fakes.models import write_digits_checkpoint
from tests.serving import making

pytestmark = pytest.mark.ray


def register(uri: str, folder) -> str:
    """A version of the model ``digits`` in MLflow's registry. Returns its number."""
    import mlflow

    tracker = Tracker(uri)
    run_id = tracker.start("train", "digits")
    tracker.files(Folder(folder), list(CHECKPOINT_FILES), CHECKPOINT)
    tracker.finish()
    client = mlflow.MlflowClient(uri, uri)
    if not client.search_registered_models("name='digits'"):
        client.create_registered_model("digits")
    return str(client.create_model_version("digits", f"runs:/{run_id}/{CHECKPOINT}", run_id).version)


class Load(threading.Thread):
    """A client that asks again and again, and keeps what it is answered."""

    def __init__(self, url: str, image) -> None:
        super().__init__(daemon=True)
        self.url, self.image, self.answers, self.ended, self.error = url, image, [], threading.Event(), None

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                self.answers.append(ask(f"{self.url}/v1/certify", {"image": {"array": self.image.tolist()}}))
        except Exception as error:
            self.error = error


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.endurance)])
def test_killed_replicas_and_a_model_promoted_through_the_gate_give_no_wrong_answer(tmp_path, kills):
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folders = [write_digits_checkpoint(tmp_path / name, sharper) for name, sharper in (("one", 3.0), ("two", 8.0))]
    versions = [register(uri, folder) for folder in folders]
    client = mlflow.MlflowClient(uri, uri)
    client.set_registered_model_alias("digits", "live", versions[0])
    few = {"n": 200, "n0": 20, "max_images": 40, "alpha": 0.05}
    certify.run(str(folders[0]), RunOptions(str(tmp_path / "certified"), tracking=False), settings=few, on_ray=False)
    options = ("--tracking-uri", uri, "--poll", 0.2, "--port", 0, "--secret-file", tmp_path / "secret")
    process = start("serve", "models:/digits@live", "--replicas", 2, "--max-draws", 2000, "--chunk", 50, *options)
    lines = []
    try:
        while not (lines and lines[-1].startswith("serving")):
            line = process.stdout.readline()
            assert line, process.communicate()[1][-3000:]
            lines.append(line)
        url = re.search(r"http://127.0.0.1:\d+", lines[-1]).group()
        images = making.digits(4)
        loads = [Load(url, image) for image in images]
        for load in loads:
            load.start()
        wait_for(lambda: all(load.answers for load in loads), process=process)
        for number in range(kills):
            replicas = below(process.pid, "ServeReplica")
            os.kill(replicas[number % len(replicas)].pid, signal.SIGKILL)
            before = [len(load.answers) for load in loads]
            wait_for(lambda b=before: all(len(load.answers) > n + 20 for load, n in zip(loads, b, strict=True)))
            wait_for(lambda: len(below(process.pid, "ServeReplica")) >= 2)
        options = RunOptions(str(tmp_path / "gate"), tracking_uri=uri)
        passed = gate.run(
            f"models:/digits/{versions[1]}",
            options,
            against=str(tmp_path / "certified"),
            require=["certified_accuracy@0 >= -60pt"],
            promote="live",
            on_ray=False,
        )
        assert passed.opened and passed.summary["new_model_sha256"] == load_checkpoint(str(folders[1]))[1].sha256
        wait_for(lambda: all(load.answers[-1]["model"]["version"] == versions[1] for load in loads))
        for load in loads:
            load.ended.set()
            load.join()
        health = json.load(urllib.request.urlopen(f"{url}/v1/model"))
        assert health["alias"] == "live" and health["name"] == "digits"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err[-3000:]
    finally:
        process.kill()

    settings, secret = ServeSettings(max_draws=2000, chunk=50), read_secret(str(tmp_path / "secret"))
    for load in loads:
        assert load.error is None
        right = {}
        for folder, version in zip(folders, versions, strict=True):
            plain = making.plain_certificate(
                load.image, "certify", settings, settings.radii, 0.001, folder=str(folder), secret=secret
            )
            right[version] = plain | {"sha256": load_checkpoint(str(folder))[1].sha256}
        assert {answer["model"]["version"] for answer in load.answers} == set(versions)
        for answer in load.answers:
            found, plain = answer["results"][0] | answer["model"], right[answer["model"]["version"]]
            assert {key: found[key] for key in plain} == plain
