"""Every method in the real loop, without Ray: it costs what it says, learns, resumes bit for bit, and combines."""

import pytest
import torch

from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.settings.methods import BUILT_IN
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer
from acr_ray.training.methods import Passes, build_method

TINY = {"training.epochs": 2, "training.e_t": 1, "training.milestones": (1,)}
MORE = {  # beside each method at its settings for digits
    "gaussian": [{}],
    "smoothadv": [{}, {"method.attack": "ddn"}],
    "consistency": [{}, {"training.m": 1}],
    "macer": [{}, {"method.deferred": False}],
    "smoothmix": [{}, {"method.one_step": True}],
    "catrs": [{}, {"training.m": 1}],
    "stability": [{}, {"training.m": 4}],
}
RUNS = [(name, change) for name, changes in MORE.items() for change in changes]


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(0, 1200, 6))


def recipe(name, change):
    return load_recipe(f"digits-{name}").change(TINY | change)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_every_method_is_tested_here():
    assert MORE.keys() == BUILT_IN.keys()


@pytest.mark.parametrize("name, change", RUNS)
def test_passes_counted_are_the_cost_stated(images, name, change):
    settings = recipe(name, change)
    record = Trainer(settings, images, 0, Group()).epoch()
    stated = build_method(settings).passes(len(images), settings.training.m)
    assert Passes(record["forward_passes"], record["backward_passes"]) == stated


@pytest.mark.parametrize("name, change", RUNS)
def test_a_resumed_run_is_the_same_run(images, tmp_path, name, change):
    undisturbed = Trainer(recipe(name, change), images, 3, Group())
    undisturbed.run(Hooks(after_epoch=lambda: undisturbed.save(tmp_path) if undisturbed.progress.epoch == 1 else None))
    resumed = Trainer(recipe(name, change), images, 3, Group())
    resumed.load(tmp_path)
    assert resumed.progress.epoch == 1
    resumed.run()
    assert same(weights(resumed), weights(undisturbed))
    first, second = (
        [{k: v for k, v in record.items() if k not in ("seconds", "timing")} for record in trainer.progress.history]
        for trainer in (resumed, undisturbed)
    )
    assert first == second


@pytest.mark.parametrize("name", MORE)
def test_combines_with_discard_reweigh_and_the_attack_on_the_noise(images, name):
    whole = {"discard.enabled": True, "discard.p_t": 0.05, "discard.draws": 8, "reweigh.enabled": True}
    whole |= {"reweigh.draws": 8, "attack.enabled": True}
    trainer = Trainer(load_recipe(f"digits-{name}").change(TINY | whole), images, 0, Group())
    trainer.run()
    last = trainer.progress.history[-1]
    assert last["remaining"] < len(images) and 0 < last["attack_active"][0] <= 1
    assert all(torch.isfinite(value).all() for value in trainer.module.state_dict().values())


@pytest.mark.parametrize("name", MORE)
def test_learns(name):
    change = {"training.epochs": 6, "training.e_t": 5, "training.milestones": (5,)}
    trainer = Trainer(load_recipe(f"digits-{name}").change(change), open_images("digits", None, "train"), 0, Group())
    trainer.run()
    assert trainer.progress.history[-1]["accuracy"] > 0.35, "ten classes, one noisy copy"
