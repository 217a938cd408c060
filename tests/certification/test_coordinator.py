"""The coordinator with samplers that only pretend: any number of them, slow ones, lost ones, a failing disk."""

import time

import numpy as np
import pytest

from acr_ray.certification.coordinator import Coordinator, SamplersLost, StorageLost
from acr_ray.certification.count_store import CountStore
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.procedure import CertificationProcedure
from acr_ray.data.image_set import MemorySet
from acr_ray.settings import CertifySettings
from acr_ray.storage import Folder
from tests.fakes.sampler_pool import SimulatedSamplerPool

SETTINGS = CertifySettings(sigma=0.5, dataset="digits", n=3000, block=100, radii=(0.0, 0.25, 0.5))


def changed(stopping):
    """The settings with a stopping rule, of two-class certificates where it says so."""
    kind = "two-class" if stopping.startswith("two-class") else "one-class"
    return SETTINGS.change({"stopping": stopping.split()[-1], "certificate": kind})


def image_set(count):
    pixels = np.zeros((count, 1, 1, 1), dtype=np.uint8)
    return MemorySet(
        pixels,
        dataset="digits",
        split="test",
        labels=[i % 10 for i in range(count)],
        names=[f"i/{i}" for i in range(count)],
        class_names=[str(c) for c in range(10)],
        mean=(0.0,),
        std=(1.0,),
    )


def certify(folder, pool, settings=SETTINGS, images=12, low=3, high=3, patience=600.0):
    """Run a certification to its end. Returns its store and the coordinator."""
    data = image_set(images)
    store, ledger = (
        CountStore(CertificationProcedure(settings), data.names, data.labels.tolist()),
        Ledger(Folder(folder), data.names, 10),
    )
    ledger.read(store)
    coordinator = Coordinator(ledger, store, data, pool, low, high, settings.block, patience, pool.clock)
    coordinator.run()
    assert not coordinator.samplers and len(store.finished) == images
    again = CountStore(CertificationProcedure(settings), data.names, data.labels.tolist())
    Ledger(Folder(folder), data.names, 10).read(again)
    assert again.finished == store.finished, "the ledger holds all that was counted"
    return store, coordinator


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Verdicts by stopping rule, drawn by one sampler that never fails."""
    found = {}
    for stopping in ("fixed", "radii", "width", "two-class radii"):
        settings = changed(stopping)
        pool = SimulatedSamplerPool()
        store, coordinator = certify(tmp_path_factory.mktemp(stopping), pool, settings, low=1, high=1)
        assert coordinator.wasted == 0
        found[stopping] = store.finished
    return found


@pytest.mark.parametrize("stopping", ["fixed", "radii", "width"])
@pytest.mark.parametrize("samplers", [2, 7, 40])
def test_any_number_of_samplers_gives_the_same(alone, tmp_path, stopping, samplers):
    store, coordinator = certify(
        tmp_path, SimulatedSamplerPool(), SETTINGS.change({"stopping": stopping}), low=1, high=samplers
    )
    assert store.finished == alone[stopping] and coordinator.wasted == 0


def test_sequential_rules_spend_less_and_agree_on_what_they_claim(alone):
    fixed, radii = alone["fixed"], alone["radii"]
    assert sum(v.n for v in radii.values()) < 0.7 * sum(v.n for v in fixed.values())
    assert {v.outcome for v in fixed.values()} == {"certified"}
    assert all(radii[i].predicted == fixed[i].predicted for i in fixed)


@pytest.mark.parametrize("stopping", ["fixed", "radii"])
@pytest.mark.parametrize("seed", range(5))
def test_samplers_lost_at_random_change_nothing(alone, tmp_path, stopping, seed):
    rng = np.random.default_rng(seed)
    pool = SimulatedSamplerPool(fails=lambda sampler, now: rng.random() < 0.2)
    store, _ = certify(tmp_path, pool, SETTINGS.change({"stopping": stopping}), high=4)
    assert store.finished == alone[stopping]
    assert pool.started > 4, "the lost ones were replaced"
    needed = sum(phase.blocks for phase in store.procedure.phases) * 12 if stopping == "fixed" else 0
    assert pool.blocks - needed <= pool.lost_blocks or stopping != "fixed", "only what was in flight is drawn again"


def test_a_sampler_that_hardly_moves_is_overtaken(alone, tmp_path):
    """Its tasks are given to others as well; the run does not wait for it, and its late answers count once."""
    pool = SimulatedSamplerPool(block_seconds=0.1, slows=lambda sampler: 10_000.0 if sampler == 0 else 1.0)
    store, coordinator = certify(tmp_path, pool)
    assert store.finished == alone["fixed"] and pool.now < 1000


def test_pending_samplers_are_not_waited_for(alone, tmp_path):
    class Scarce(SimulatedSamplerPool):
        """A cluster with room for two; a node for one more comes late."""

        def start(self):
            self._start_seconds = 5.0 if self.started < 2 else 30.0 if self.started == 2 else 1e9
            return super().start()

    pool = Scarce()
    store, _ = certify(tmp_path, pool, low=1, high=50)
    assert store.finished == alone["fixed"] and pool.now < 1000


def test_samplers_that_never_answer_end_the_run(tmp_path):
    with pytest.raises(SamplersLost, match="simulated"):
        certify(tmp_path, SimulatedSamplerPool(fails=lambda sampler, now: True))


@pytest.fixture
def failing_disk(monkeypatch):
    """A switch: while on, every write of the ledger fails as on a full disk."""
    state = {"full": False, "refused": 0}
    write = Folder.write_text

    def write_text(self, name, text):
        if state["full"]:
            state["refused"] += 1
            raise OSError(28, "No space left on device")
        write(self, name, text)

    monkeypatch.setattr(Folder, "write_text", write_text)
    return state


def test_a_disk_that_is_full_for_a_while_costs_nothing(alone, tmp_path, failing_disk):
    class Watched(SimulatedSamplerPool):
        def wait(self, seconds):
            failing_disk["full"] = 10 < self.now < 60
            return super().wait(seconds)

    store, coordinator = certify(tmp_path, Watched())
    assert failing_disk["refused"] > 5 and coordinator.wasted == 0
    assert store.finished == alone["fixed"]


def test_a_disk_that_stays_full_ends_the_run_and_what_was_written_is_kept(alone, tmp_path, failing_disk):
    class Watched(SimulatedSamplerPool):
        def wait(self, seconds):
            failing_disk["full"] = self.now > 40
            return super().wait(seconds)

    with pytest.raises(StorageLost, match="No space left"):
        certify(tmp_path, Watched(), patience=100.0)
    failing_disk["full"] = False
    pool = SimulatedSamplerPool()
    store, _ = certify(tmp_path, pool)
    assert store.finished == alone["fixed"]
    assert pool.blocks < 12 * 31, "what was written is not drawn again"


@pytest.mark.parametrize("stopping", ["fixed", "radii", "two-class radii"])
@pytest.mark.parametrize("seed", range(4))
def test_a_coordinator_cut_off_at_random_goes_on_where_it_was(alone, tmp_path, stopping, seed):
    class CutOff(Exception):
        pass

    rng = np.random.default_rng(seed)

    class Cutting(SimulatedSamplerPool):
        def wait(self, seconds):
            if rng.random() < 0.1:
                raise CutOff
            return super().wait(seconds)

    settings, starts = changed(stopping), 0
    while True:
        starts += 1
        try:
            store, _ = certify(tmp_path, Cutting(), settings)
            break
        except CutOff:
            assert starts < 500
    assert store.finished == alone[stopping] and starts > 1


def test_the_coordinator_costs_little(tmp_path):
    """256 samplers, blocks of one second: its own processor time beside the simulated time that the run takes."""
    pool = SimulatedSamplerPool(block_seconds=1.0)
    settings = SETTINGS.change({"n": 100 * 100})
    started = time.process_time()
    _, coordinator = certify(tmp_path, pool, settings, images=500, low=256, high=256)
    cost = time.process_time() - started
    assert coordinator.wasted == 0 and pool.blocks == 500 * 101
    assert pool.now < 1.3 * pool.blocks / 256 + 30, "nobody was idle for long"
    assert pool.tasks < 40 * pool.now, "tasks grow with the number of samplers"
    assert cost < 0.05 * pool.now
