"""An MLflow that goes away and comes back: nothing missing, nothing twice, one line each way."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from acr_ray.storage import Folder
from acr_ray.tracking import Tracker, quieten
from acr_ray.tracking.advice import advice
from acr_ray.tracking.backlog import AGAIN, Backlog
from acr_ray.tracking.probe import check_mlflow
from acr_ray.tracking.runs import EpochLog


class Server:
    """Takes calls while it is up."""

    def __init__(self):
        self.up, self.taken, self.asked, self.now, self.said = True, [], 0, 0.0, []
        self.backlog = Backlog(
            lambda reason: self.said.append(f"lost: {reason}"),
            lambda: self.said.append("found"),
            lambda reason: self.said.append(f"refused: {reason}"),
            self.clock,
            self.sleep,
        )

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def call(self, what):
        def made():
            self.asked += 1
            if not self.up:
                raise ConnectionError("refused")
            self.taken.append(what)
            return what

        return made


def test_what_failed_is_made_again_in_order_and_said_once():
    server = Server()
    server.backlog.later(server.call(1))
    server.up = False
    for what in (2, 3, 4):
        server.backlog.later(server.call(what))
    assert server.taken == [1] and not server.backlog.empty and server.said == ["lost: refused"]
    assert server.asked == 2, "a server that is away is not asked at every call"
    server.up, server.now = True, AGAIN + 1
    server.backlog.later(server.call(5))
    assert server.taken == [1, 2, 3, 4, 5] and server.backlog.empty
    assert server.said == ["lost: refused", "found"]


def test_a_call_that_can_not_wait_is_made_after_those_that_do_or_not_at_all():
    server = Server()
    assert server.backlog.now(server.call(1)) == 1
    server.up = False
    server.backlog.later(server.call(2))
    server.now = AGAIN + 1
    assert server.backlog.now(server.call(3)) is None
    server.up = True
    assert server.backlog.now(server.call(4)) is None, "too soon to ask again"
    server.now = 2 * AGAIN + 3
    assert server.backlog.now(server.call(5)) == 5 and server.taken == [1, 2, 5]


def test_waiting_ends_when_the_server_is_back_and_when_patience_is_over():
    server = Server()
    server.up = False
    server.backlog.later(server.call(1))
    assert not server.backlog.clear(wait=10) and 10 <= server.now < 14
    back_at = server.now + 6

    def sleep(seconds):
        server.now += seconds
        server.up = server.now >= back_at

    server.backlog._sleep = sleep
    assert server.backlog.clear(wait=30) and server.taken == [1] and server.now < back_at + 3


def refusing(server):
    def refused():
        server.asked += 1
        raise MlflowException("bad name", error_code=1000)  # INVALID_PARAMETER_VALUE

    return refused


def test_what_the_server_will_never_take_is_set_aside_and_blocks_nothing():
    server = Server()
    for call in (refusing(server), server.call(2), refusing(server), server.call(3)):
        server.backlog.later(call)
    assert server.taken == [2, 3] and server.asked == 4 and server.backlog.empty and not server.backlog.final
    assert server.backlog.now(refusing(server)) is None and server.backlog.now(server.call(4)) == 4
    assert server.said == ["refused: INVALID_PARAMETER_VALUE: bad name"] or server.said == ["refused: bad name"]


def test_without_what_is_essential_nothing_later_is_tried():
    server = Server()
    server.backlog.later(refusing(server), essential=True)
    server.now = 10 * AGAIN
    server.backlog.later(server.call(2))
    assert not server.backlog.clear(wait=100) and server.asked == 1 and server.now == 10 * AGAIN
    assert server.backlog.final and not server.backlog.empty and server.said == ["lost: bad name"]


@pytest.fixture
def uri(store):
    quieten()
    return store


class Away:
    """In place of the tracker's client: MLflow is not there."""

    def __getattr__(self, name):
        raise ConnectionError("refused")


def test_a_run_has_every_epoch_whenever_mlflow_was_away(uri, tmp_path):
    records = [{"epoch": e, "loss": 1.0 / (e + 1)} for e in range(8)]
    said = []
    tracker = Tracker(uri, said.append)
    run_id = tracker.start("train", "a")
    client, log = tracker._client, EpochLog(tracker)
    for record in records:
        tracker._client = Away() if 2 <= record["epoch"] < 6 else client
        log(record)
    assert not tracker.ok and len(said) == 1
    (tmp_path / "summary.json").write_text("{}")
    assert tracker.wait() and tracker.ok, said
    tracker.files(Folder(tmp_path), ["summary.json"])
    tracker.finish()
    assert tracker.ok and len(said) == 2 and "answers again" in said[1]
    found = mlflow.MlflowClient(uri)
    history = found.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(r["epoch"], r["loss"]) for r in records]
    assert found.get_run(run_id).info.status == "FINISHED"


def test_an_mlflow_that_is_away_at_first_gets_the_whole_run(uri, monkeypatch):
    said, there = [], mlflow.MlflowClient
    monkeypatch.setattr(mlflow, "MlflowClient", lambda **options: Away())
    tracker = Tracker(uri, said.append)
    assert tracker.start("train", "a") is None
    tracker.params({"sigma": 0.5})
    records = [{"epoch": e, "loss": 1.0} for e in range(3)]
    log = EpochLog(tracker)
    log(records[0])
    monkeypatch.setattr(mlflow, "MlflowClient", there)
    tracker._backlog._again = 0.0
    assert tracker.wait() and tracker.run_id
    for record in records:
        log(record)
    run = mlflow.MlflowClient(uri).get_run(tracker.run_id)
    assert run.data.params == {"sigma": "0.5"} and tracker.ok
    assert len(mlflow.MlflowClient(uri).get_metric_history(tracker.run_id, "loss")) == 3


def test_advice_follows_the_answer():
    assert "--allowed-hosts" in advice("http://mlflow:5000", "403 Invalid Host header - possible DNS rebinding attack")
    assert "MLFLOW_TRACKING_USERNAME" in advice("http://mlflow:5000", "error code 403 != 200: Permission denied")
    assert "SERVER_CERT_PATH" in advice("https://mlflow", "certificate verify failed")
    assert "that the server runs" in advice("http://mlflow:5000", "Connection refused")


def test_the_probe_leaves_no_run_behind(uri):
    assert "deleted again" in check_mlflow(uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("acr-ray").experiment_id
    assert client.search_runs([experiment]) == []
