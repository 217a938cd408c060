"""What a GPU would be made to wait for, seen on a CPU: every method, precision, norm and way to attack."""

import itertools

import numpy as np
import pytest
import torch

from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.settings.recipe import AttackSettings
from acr_ray.smoothing import noise as noises
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.training.ascent import gradient
from acr_ray.training.attack import attack_every_row, attack_noise
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.precision import in_precision
from acr_ray.training.step import StepInput
from acr_ray.training.sums import Sums
from tests.fakes.device import Pretended

METHODS = ("gaussian", "smoothadv", "consistency", "macer", "smoothmix", "catrs", "stability")
T = 3


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(0, 1297, 40))


def watched(recipe, images, attacks, look_first=()):
    """Two steps, the second one watched."""
    trainer = Trainer(recipe, images, 0, Group())
    trainer.module.train()
    inputs = min(recipe.inputs_per_step, len(images))
    mine = np.arange(inputs)
    x, y = images.load(mine, None), torch.from_numpy(images.labels[mine])
    sums = Sums(recipe.attack.steps, "cpu")
    given = StepInput(x, y, mine, inputs, 0, 0, 10, attacks, look_first)
    trainer.step(given, sums)
    with Pretended() as seen:
        trainer.step(given, sums)
    return seen


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_a_method_waits_for_nothing(method, precision, images):
    recipe = load_recipe(f"digits-{method}").change({"training.precision": precision})
    seen = watched(recipe, images, attacks=False)
    # float16: the scaler asks once whether a gradient has overflowed; torch asks on a GPU as well.
    allowed = 1 if precision == "float16" else 0
    # CAT-RS and others may not choose rows by value either.
    assert sum(seen.waits.values()) <= allowed, dict(seen.waits)
    assert not seen.float64 and not seen.mixed, (dict(seen.float64), dict(seen.mixed))


@pytest.mark.parametrize(
    ("norm", "buckets", "looks", "accumulate", "precision"),
    list(
        itertools.product(("l2", "linf"), (0, 4), ((), (True, False, True)), (1, 2), ("float32", "bfloat16", "float16"))
    ),
)
def test_the_attack_waits_once_a_pgd_step_and_once_more_where_it_looks(
    norm, buckets, looks, accumulate, precision, images
):
    recipe = load_recipe("digits").change(
        {
            "attack.norm": norm,
            "attack.buckets": buckets,
            "training.accumulate": accumulate,
            "attack.steps": T,
            "training.precision": precision,
        }
    )
    seen = watched(recipe, images, attacks=True, look_first=looks)
    allowed = T * accumulate + (1 if precision == "float16" else 0)
    assert 1 <= sum(seen.waits.values()) <= allowed, dict(seen.waits)
    assert not seen.float64 and not seen.mixed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_engine_waits_for_nothing_between_blocks(dtype, images):
    model = Trainer(load_recipe("digits-gaussian"), images, 0, Group()).module
    model._forward_hooks.clear()
    engine = SamplingEngine(prepare(model, dtype=dtype), 10, 0.25)
    x, names = images.load(range(3), None), images.names[:3]
    waits = []
    for blocks in (2, 6):
        with Pretended() as seen:
            engine.count_images(x, names, 0, Phase("estimate", blocks * 50, 50), 0, blocks)
        assert not seen.float64 and not seen.mixed
        waits.append(sum(seen.waits.values()))
        with Pretended() as seen:
            labels = torch.from_numpy(images.labels[:3])
            engine.count_label(x, labels, names, 0, Phase("p_a", blocks * 50, 50))
        waits.append(sum(seen.waits.values()))
    assert waits == [1, 1, 1, 1]  # whether all logits were finite, once at the end


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_lattice_noise_of_a_device_waits_for_nothing_between_blocks_and_is_the_cpus(dtype, images, monkeypatch):
    ready = prepare(Trainer(load_recipe("digits-gaussian"), images, 0, Group()).module, dtype=dtype)
    x, names = images.load(range(3), None), images.names[:3]
    phase = Phase("estimate", 300, 50)
    expected = SamplingEngine(ready, 10, 0.25, levels=256).count_images(x, names, 0, phase, 0, 6)
    monkeypatch.setattr(noises, "with_numpy", lambda device: False)
    monkeypatch.setattr(noises, "compiler_problem", lambda device: "none here")
    engine, waits = SamplingEngine(ready, 10, 0.25, levels=256), []
    for blocks in (2, 6):
        with Pretended() as seen:
            found = engine.count_images(x, names, 0, phase, 0, blocks)
        assert not seen.float64 and not seen.mixed
        waits.append(sum(seen.waits.values()))
    assert waits == [1, 1]
    assert (found == expected).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_attack_on_every_row_finds_what_the_other_finds_and_never_waits(norm, precision, images):
    trainer = Trainer(load_recipe("digits-gaussian").change({"training.epochs": 3}), images, 0, Group())
    trainer.run()
    x, y = images.load(range(len(images)), None), torch.from_numpy(images.labels)
    noise = 0.25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    settings = AttackSettings(enabled=True, steps=T, epsilon=0.25, norm=norm)
    scale = 1024.0 if precision == "float16" else 1.0
    network = in_precision(trainer.module, precision, "cpu")
    one = attack_noise(network, x, y, noise, settings, scale=scale)
    with Pretended() as seen:
        other = attack_every_row(network, x, y, noise, settings, scale=scale)
    assert not seen.waits and 0 < one.active[-1] < one.active[0]
    assert (one.active - other.active).abs().max() <= (0 if precision == "float32" else 2)
    alike = (one.noise - other.noise).flatten(1).norm(dim=1) < 1e-5 * noise.flatten(1).norm(dim=1)
    assert alike.double().mean() > (0.99 if precision == "float32" else 0.85)


def test_the_pretended_device_catches_planted_faults():
    x = torch.randn(2000)
    with Pretended() as seen:
        x[x > 0].sum()
        float(x.sum())
        bool((x > 0).any())
        x.double().sum()
        torch.where(x[:2] > 0, x[:2].bfloat16(), x[:2].half())
    assert sum(seen.waits.values()) == 3 and sum(seen.float64.values()) == 1 and sum(seen.mixed.values()) == 1


def test_a_gradient_that_overflows_moves_nothing():
    at = torch.tensor([[1.0], [2.0]])
    found = gradient(lambda x: x[:, 0] * torch.tensor([float("inf"), 3.0]), at)
    assert found.tolist() == [[0.0], [3.0]]
