"""What the coordinator is made of: the writer of the ledger, the estimate of a sampler's speed, decoded images."""

import numpy as np
import pytest

from acr_ray.certification import ledger_writer
from acr_ray.certification.image_cache import ImageCache
from acr_ray.certification.ledger_writer import FLUSH_SECONDS, LedgerWriter, StorageLost
from acr_ray.certification.rate_estimator import TASK_SECONDS, TASKS_PER_SECOND, RateEstimator
from tests.certification.test_coordinator import image_set


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class FakeLedger:
    """Remembers what was appended; fails while it is full."""

    def __init__(self):
        self.full, self.files = False, []

    def append(self, lines):
        if self.full:
            raise OSError(28, "No space left on device")
        self.files.append(list(lines))


@pytest.fixture
def clock():
    return Clock()


def test_lines_are_written_together_and_not_too_often(clock):
    ledger = FakeLedger()
    writer = LedgerWriter(ledger, patience=10, clock=clock)
    writer.add("a")
    writer.flush()
    assert ledger.files == [] and writer.unwritten == 1
    clock.now = FLUSH_SECONDS
    writer.add("b")
    writer.flush()
    assert ledger.files == [["a", "b"]] and writer.unwritten == 0
    writer.add("c")
    writer.flush(force=True)
    writer.flush(force=True)
    assert ledger.files == [["a", "b"], ["c"]], "nothing to write leaves no file"


def test_many_lines_do_not_wait(clock, monkeypatch):
    monkeypatch.setattr(ledger_writer, "MOST_UNWRITTEN", 2)
    ledger = FakeLedger()
    writer = LedgerWriter(ledger, patience=10, clock=clock)
    for line in "abc":
        writer.add(line)
        writer.flush()
    assert ledger.files == [["a", "b", "c"]]


def test_a_full_disk_is_tried_again_until_patience_ends(clock):
    ledger = FakeLedger()
    writer = LedgerWriter(ledger, patience=10, clock=clock)
    ledger.full = True
    writer.add("a")
    for clock.now in (2.0, 5.0, 9.0):
        writer.flush()
        assert writer.unwritten == 1
    ledger.full = False
    clock.now = 9.5
    writer.flush()
    assert ledger.files == [], "the last try was half a second ago"
    clock.now = 10.0
    writer.flush()
    assert ledger.files == [["a"]]
    ledger.full = True
    writer.add("b")
    clock.now = 19.0
    writer.flush()
    clock.now = 20.5
    with pytest.raises(StorageLost, match="10 s .*No space left"):
        writer.flush()
    assert writer.unwritten == 1, "nothing is forgotten"


def test_tasks_are_sized_by_the_speed_seen():
    rate = RateEstimator(first_size=400)
    assert rate.task_size(1) == 400 and rate.seconds_for(1) == float("inf")
    rate.observe(1000, 2.0)
    assert rate.rate == 500 and rate.task_size(1) == 500 * TASK_SECONDS and rate.seconds_for(250) == 0.5
    assert rate.task_size(10 * TASKS_PER_SECOND) == 10 * 500, "many samplers get longer tasks"


def test_one_odd_task_does_not_decide():
    rate = RateEstimator(first_size=400)
    rate.observe(1000, 1.0)
    rate.observe(1_000_000, 1.0)
    assert rate.rate == (1000 + 4000) / 2
    rate.observe(1, 1e9)
    assert rate.rate == pytest.approx(1250), "a stalled task halves it"
    rate.observe(0, 0.0)
    assert rate.task_size(1) >= 1


def test_images_are_loaded_once_while_they_are_kept():
    images, loads = image_set(6), []
    load = images.load
    images.load = lambda positions, views: loads.append(list(positions)) or load(positions, views)
    cache = ImageCache(images, most=3)
    assert cache.pixels((0, 1)).shape == (2, 1, 1, 1) and cache.pixels((1, 0)).dtype == np.float32
    cache.pixels((1, 2))
    cache.pixels((3,))
    assert loads == [[0, 1], [2], [3]] and len(cache) == 3
    cache.pixels((1, 0))
    assert loads[-1] == [0], "the one not asked for longest had gone"


def test_more_images_at_once_than_are_kept():
    images = image_set(6)
    cache = ImageCache(images, most=2)
    assert np.array_equal(cache.pixels(range(6)), images.load(list(range(6)), None).numpy()) and len(cache) == 2
