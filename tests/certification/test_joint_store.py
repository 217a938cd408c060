"""Runs whose images stop together: looks, faults, resuming half way."""

from contextlib import suppress

import numpy as np
import pytest

from acr_ray.certification.coordinator import Coordinator
from acr_ray.certification.joint_store import JointCountStore
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.procedure import CertificationProcedure
from acr_ray.certification.work_items import BlockRange
from acr_ray.data.image_set import MemorySet
from acr_ray.formats.states import Outcome
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.bounds import lower_bound
from acr_ray.smoothing.distribution_rule import LOOKS
from acr_ray.storage import Folder
from tests.fakes.sampler_pool import SimulatedSamplerPool

IMAGES = 50
SETTINGS = CertifySettings(
    sigma=0.5, dataset="digits", n=20_000, n0=100, block=500, stopping="distribution", band=0.15, alpha=0.05
)


def image_set():
    pixels = np.zeros((IMAGES, 1, 1, 1), dtype=np.uint8)
    names = [f"i/{i}" for i in range(IMAGES)]
    pool = SimulatedSamplerPool()
    # The label is the class that the simulated network favours, but for every fifth image.
    favourites = [pool.favourite(name) for name in names]
    labels = [(f + (i % 5 == 0)) % 10 for i, f in enumerate(favourites)]
    return MemorySet(
        pixels,
        dataset="digits",
        split="test",
        labels=labels,
        names=names,
        class_names=[str(c) for c in range(10)],
        mean=(0.0,),
        std=(1.0,),
    )


DATA = image_set()


def opened(folder, settings=SETTINGS):
    store = JointCountStore(CertificationProcedure(settings), DATA.names, DATA.labels.tolist())
    ledger = Ledger(Folder(folder), DATA.names, 10)
    ledger.read(store)
    return store, ledger


def certify(folder, pool, settings=SETTINGS, samplers=3):
    store, ledger = opened(folder, settings)
    before = store.noise_draws
    coordinator = Coordinator(ledger, store, DATA, pool, samplers, samplers, settings.block, 600.0, pool.clock)
    progress = []
    coordinator.run(progress.append)
    return store, coordinator, before, progress


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    store, coordinator, _, progress = certify(tmp_path_factory.mktemp("alone"), SimulatedSamplerPool(), samplers=1)
    assert coordinator.wasted == 0
    return store, progress


def test_all_images_end_together_with_the_error_asked_for(alone):
    store, progress = alone
    assert len(store.finished) == IMAGES and store.error <= SETTINGS.band and not store.waits
    verdicts = list(store.finished.values())
    assert {v.reason for v in verdicts} == {"band"}
    assert len({v.n for v in verdicts}) > 2, "images differ in what they need"
    assert all(v.n == sum(v.counts.values()) for v in verdicts)
    for v in verdicts:
        p = float(lower_bound(v.counts.get(v.predicted, 0), v.n, SETTINGS.alpha / LOOKS))
        assert v.p_lower == (p if p > 0.5 else 0.0)
        assert (v.outcome == Outcome.CERTIFIED) == (p > 0.5)
    drawn = {p.noise_draws_planned for p in progress}
    assert 0 in drawn and max(drawn) == store.noise_draws == IMAGES * 100 + sum(v.n for v in verdicts)


def test_nothing_but_the_pilot_decides_how_many_draws_an_image_has_at_a_look(alone):
    store, _ = alone
    pilot = [store.procedure.rule, store._draws]
    assert pilot[1].shape == (LOOKS, IMAGES)
    assert any((pilot[1][look] == [store.finished[i].n for i in range(IMAGES)]).all() for look in range(LOOKS))


@pytest.mark.parametrize("seed", range(3))
def test_who_drew_what_when_and_who_was_lost_changes_nothing(alone, tmp_path, seed):
    rng = np.random.default_rng(seed)
    pool = SimulatedSamplerPool(fails=lambda s, now: rng.random() < 0.1, slows=lambda s: float(rng.uniform(0.2, 5)))
    store, *_ = certify(tmp_path, pool, samplers=int(rng.integers(2, 7)))
    assert store.finished == alone[0].finished and store.error == alone[0].error


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 8, 35, 90])
def test_a_run_killed_at_any_look_resumes_to_the_same(alone, tmp_path, after, monkeypatch):
    pool = SimulatedSamplerPool()
    store, ledger = opened(tmp_path)
    coordinator = Coordinator(ledger, store, DATA, pool, 2, 2, SETTINGS.block, 600.0, pool.clock)
    done = 0

    def stop(progress):
        nonlocal done
        done += 1
        if done == after:
            raise Stop

    with suppress(Stop):
        coordinator.run(stop)
    resumed, second, before, _ = certify(tmp_path, SimulatedSamplerPool(), samplers=3)
    assert resumed.finished == alone[0].finished
    assert second.wasted == 0 and resumed.noise_draws == alone[0].noise_draws
    again, _ = opened(tmp_path)
    assert again.finished == resumed.finished


def test_samplers_are_kept_while_images_wait_for_the_next_look(tmp_path):
    pool = SimulatedSamplerPool()
    store, ledger = opened(tmp_path)
    Coordinator(ledger, store, DATA, pool, 1, 4, SETTINGS.block, 600.0, pool.clock).run()
    assert pool.started == 4, "none was released and started again"


def test_a_limit_on_draws_ends_the_run_and_says_how_far_it_came(tmp_path):
    settings = SETTINGS.change({"n": 200, "band": 0.01})
    store, *_ = certify(tmp_path, SimulatedSamplerPool(), settings)
    assert len(store.finished) == IMAGES and store.error > 0.01
    assert {v.n for v in store.finished.values()} == {200}


def test_draws_that_no_look_asks_for_are_refused(alone, tmp_path):
    store, ledger = opened(tmp_path)
    for image in range(IMAGES):
        for phase, blocks in (("select", 1), ("estimate", store.phases["estimate"].blocks)):
            draws = store.phases[phase].counted_between(0, blocks)
            ledger.append([(BlockRange(image, phase, 0, blocks), {int(DATA.labels[image]): draws}, 0.1)])
    with pytest.raises(UserError, match="its ledger has"):
        opened(tmp_path)


def test_settings_that_do_not_fit_are_refused():
    for change, words in [
        ({"certificate": "two-class"}, "not with stopping distribution"),
        ({"stop_when_wrong": True}, "not with stopping distribution"),
        ({"bound": "randomized"}, "a bound of its own"),
    ]:
        with pytest.raises(UserError, match=words):
            SETTINGS.change(change)


def test_the_band_is_a_part_of_the_run_and_of_no_other():
    assert SETTINGS.identity()["band"] == 0.15 and SETTINGS.identity()["band_upto"] == 0.98
    assert SETTINGS.sha256 != SETTINGS.change({"band": 0.1}).sha256
    fixed = SETTINGS.change({"stopping": "fixed"})
    assert "band" not in fixed.identity() and fixed.sha256 == fixed.change({"band": 0.1, "band_upto": 0.9}).sha256
