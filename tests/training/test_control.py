"""The control channel: what driver and workers tell each other, also across faults, full disks and damaged files."""

import errno
import os
import pickle
import signal

import numpy as np
import pytest
import torch

from acr_ray.formats.files import CONTROL, EVENTS, METRICS, PROBLEM
from acr_ray.formats.states import ProblemKind, RunState
from acr_ray.settings import UserError, load_recipe
from acr_ray.storage import Folder
from acr_ray.training.control import requests
from acr_ray.training.control.channel import ControlChannel, EventLog
from acr_ray.training.control.messages import Problem, Request, WorkerConfig
from acr_ray.training.control.worker_sync import WorkerSync
from acr_ray.training.errors import TrainingStopped
from acr_ray.training.group import Group


@pytest.fixture
def channel(tmp_path):
    return ControlChannel(Folder(tmp_path))


@pytest.fixture
def full_disk(monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Folder, "write_text", fail)


def test_a_run_is_starting_until_its_workers_say_otherwise(channel, tmp_path):
    assert channel.state() == RunState.STARTING
    for state in RunState:
        channel.set_state(state)
        assert channel.state() == state
    for damaged in ("{", "[]", "{}", '{"state": "elsewhere"}', '{"state": ["stop"]}'):
        (tmp_path / CONTROL).write_text(damaged)
        assert channel.state() == RunState.STARTING
    channel.close()
    assert not (tmp_path / CONTROL).exists()


def test_a_full_disk_is_no_reason_to_fail(channel, full_disk, capsys):
    channel.set_state(RunState.STOP)
    assert "could not be written" in capsys.readouterr().out
    with pytest.raises(OSError):
        channel.report_problem(Problem.of(ValueError("it")))


@pytest.mark.parametrize("error", [UserError("wrong data"), TrainingStopped("diverged")])
def test_a_problem_reaches_the_driver_once_and_as_what_it_was(channel, error):
    assert not channel.has_problem() and channel.take_problem() is None
    channel.report_problem(Problem.of(error))
    assert channel.has_problem()
    raised = channel.take_problem().error()
    assert type(raised) is type(error) and str(raised) == str(error)
    assert not channel.has_problem()


def test_a_damaged_problem_is_named(channel, tmp_path):
    (tmp_path / PROBLEM).write_text('{"kind": "odd"}')
    with pytest.raises(UserError, match=PROBLEM):
        channel.take_problem()


def test_opening_forgets_an_earlier_run(channel):
    channel.report_problem(Problem(kind=ProblemKind.USER, text="before"))
    channel.set_state(RunState.STOPPED)
    channel.open()
    assert not channel.has_problem() and channel.state() == RunState.STARTING


def test_records_and_events_are_read_as_they_were_written(channel, tmp_path):
    assert channel.records() == [] and channel.events() == []
    history = [{"epoch": 0, "loss": 0.5, "attack_active": [0.9, 0.8]}, {"epoch": 1, "loss": 0.4}]
    channel.write_records(history)
    assert channel.records() == history
    log = EventLog(channel.out)
    log("one")
    EventLog(channel.out)("two")
    assert channel.events() == ["one", "two"]
    for name, read in ((METRICS, channel.records), (EVENTS, channel.events)):
        (tmp_path / name).write_text((tmp_path / name).read_text() + '{"epoch": "1"}\n')
        with pytest.raises(UserError, match=f"{name} line 3"):
            read()


def test_events_wait_for_room(channel, monkeypatch):
    log = EventLog(channel.out)
    with monkeypatch.context() as full:
        full.setattr(Folder, "write_text", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        log("one")
    log("two")
    assert channel.events() == ["one", "two"]


def test_a_workers_configuration_travels_whole():
    config = WorkerConfig(
        run="digits:a",
        recipe=load_recipe("digits-catrs"),
        seed=3,
        out="/tmp/a",
        threads=1,
        checkpoint_every=2,
        checkpoint_minutes=None,
        keep_checkpoints=2,
        best_by="loss",
        profile=False,
        fingerprint="f",
    )
    assert pickle.loads(pickle.dumps(config)) == config


def test_workers_agree_on_requests_and_the_first_failure():
    class Three(Group):
        rank, world, device = 0, 3, "cpu"

        def __init__(self):
            pass

        def sum(self, values):
            return values + np.array([[0, 0, 0], [Request.LEAVE, 9, 5], [Request.END, 4, 7]])

    worker_sync = WorkerSync(Three(), lambda: Request.SAVE)
    worker_sync.begin(10)
    assert worker_sync.due(10) and not worker_sync.due(9)
    asked, bad = worker_sync.ask(10, torch.tensor(-1))
    assert asked == Request.SAVE | Request.LEAVE | Request.END and bad == 4
    assert not worker_sync.due(10) and worker_sync.due(11), "the first wait is one step: no speed is known yet"


def test_requests_of_a_worker(channel, monkeypatch):
    channel.set_state(RunState.RUNNING)
    notices, terminations = [], []
    about = {"terminated": lambda: bool(terminations), "preempted": lambda: bool(notices)}
    leader, other = (requests.Requests(channel, rank, minutes=1, **about) for rank in (0, 1))
    assert leader() == other() == Request(0)
    later = requests.time.monotonic() + 61
    monkeypatch.setattr(requests.time, "monotonic", lambda: later)
    assert (leader(), other()) == (Request.SAVE, Request(0)), "rank 0's clock decides"
    leader.served()
    assert leader() == Request(0)
    notices.append(1)
    assert leader() == other() == Request.SAVE
    other.served()
    assert other() == Request(0), "a notice is answered by one checkpoint"
    terminations.append(1)
    assert other() == Request.LEAVE
    terminations.clear()
    channel.set_state(RunState.STOP)
    assert leader._end.wait(5) and leader() & Request.END


def test_a_first_sigterm_is_a_request_and_a_second_the_end():
    before = signal.getsignal(signal.SIGTERM)
    try:
        requests.listen_for_termination()
        assert not requests.TERMINATION()
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.TERMINATION()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        requests.listen_for_termination()
        assert not requests.TERMINATION(), "a worker that starts anew was told nothing yet"
    finally:
        signal.signal(signal.SIGTERM, before)
