"""What the driver hears of a run through the files that the workers write."""

import json

import pytest

from acr_ray.formats.files import EVENTS, METRICS
from acr_ray.storage import Folder
from acr_ray.training.control.channel import ControlChannel
from acr_ray.training.control.follower import Follower
from tests.fakes.jobs import wait_for

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Shaky(Folder):
    """Storage whose next reads fail, as of a bucket that answers 503 or a mount that has gone for a while."""

    failing = 0

    def read_bytes(self, name, most=None):
        if self.failing:
            self.failing -= 1
            raise OSError("Service Unavailable")
        return super().read_bytes(name, most)


def write(out, name, *rows):
    out.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))


def test_each_epoch_is_told_once_also_where_workers_begin_again(tmp_path):
    out, epochs, events = Folder(tmp_path), [], []
    write(out, METRICS, {"epoch": 0})
    with Follower(ControlChannel(out), epochs.append, events.append, interval=0.01):
        write(out, METRICS, {"epoch": 0}, {"epoch": 1}, {"epoch": 2})
        wait_for(lambda: len(epochs) == 2, seconds=5)
        write(out, METRICS, {"epoch": 0}, {"epoch": 1})
        write(out, EVENTS, {"note": "a checkpoint was damaged"})
        wait_for(lambda: events, seconds=5)
        write(out, METRICS, *({"epoch": number} for number in range(4)))
    assert [record["epoch"] for record in epochs] == [1, 2, 3], "those done before the run are known"
    assert events == ["a checkpoint was damaged"]


def test_storage_that_fails_for_a_moment_is_asked_again(tmp_path):
    out, epochs = Shaky(tmp_path), []
    with Follower(ControlChannel(out), epochs.append, interval=0.01):
        write(out, METRICS, {"epoch": 0})
        wait_for(lambda: len(epochs) == 1, seconds=5)
        out.failing = 3
        wait_for(lambda: not out.failing, seconds=5)
        write(out, METRICS, {"epoch": 0}, {"epoch": 1})
        wait_for(lambda: len(epochs) == 2, seconds=5)


def test_a_last_read_that_fails_does_not_hide_how_the_run_ended(tmp_path):
    out = Shaky(tmp_path)
    write(out, METRICS, {"epoch": 0})
    with Follower(ControlChannel(out), print, interval=60):
        out.failing = 1000
