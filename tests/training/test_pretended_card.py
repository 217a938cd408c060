"""Losses and the engine on a card that is not there: whatever stayed on the CPU is refused.

Forward passes only: torch's autograd asks for a real card. Methods that attack go backward within their loss; they are
in test_pretended_device.py.
"""

import numpy as np
import pytest
import torch
from torch import nn

from acr_ray.models import build_model
from acr_ray.settings import load_recipe
from acr_ray.smoothing import noise as noises
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.lattice_law import LatticeLaw
from acr_ray.smoothing.lattice_torch import DeviceTable
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.shared import Asked, SharedPasses
from acr_ray.training.methods import Batch, build_method
from acr_ray.training.precision import in_precision
from tests.fakes.card import like, on_card, pretended_card

METHODS = ("gaussian", "consistency", "macer", "stability")
PRECISIONS = ("float32", "bfloat16", "float16")
B, M, SHAPE = 6, 4, (1, 8, 8)


def network():
    return build_model("digits_resnet", 10, SHAPE, (0.5,), (0.5,), seed=0)


def batch(model):
    return Batch(
        images=like(torch.rand(B, *SHAPE)),
        labels=like(torch.zeros(B, dtype=torch.int64)),
        noise=like(torch.rand(B * M, *SHAPE)),
        m=M,
        sigma=0.5,
        progress=3.5,
        network=model,
        seeds=np.arange(B),
        classes=10,
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_a_methods_loss_stays_on_the_card_and_in_float32(method, precision):
    recipe = load_recipe(f"digits-{method}").change({"training.m": M})
    with pretended_card():
        model = in_precision(on_card(network), precision, "cuda")
        answer = build_method(recipe).loss(model, batch(model))
        assert answer.loss.device.type == answer.logits.device.type == "cuda"
        assert answer.loss.dtype == answer.logits.dtype == torch.float32
        assert all(value.device.type == "cuda" for value in answer.logs.values())


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_the_engine_computes_on_the_card(dtype, monkeypatch):
    monkeypatch.setattr(noises, "standard_normal", lambda *a: a[4].flatten(0, 1).permute(0, 3, 1, 2))
    ready = prepare(network(), dtype=dtype)
    with pretended_card():
        engine = SamplingEngine(on_card(lambda: ready), 10, 0.25, "cuda")
        noisy = engine.noise.seeded(like(torch.rand(2, *SHAPE)), [1, 2], 5)
        classes, finite = engine._classes(noisy)
        assert classes.device.type == finite.device.type == "cuda" and classes.shape == (10,)


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_lattice_noise_is_made_on_the_card_in_the_networks_precision(dtype, monkeypatch):
    monkeypatch.setattr(noises, "compiler_problem", lambda device: "not here")
    table, ready = DeviceTable.of(LatticeLaw(0.25, 255), "cpu"), prepare(network(), dtype=dtype)
    on_the_card = staticmethod(lambda law, device: DeviceTable(*map(like, table[:3]), *table[3:]))
    monkeypatch.setattr(DeviceTable, "of", on_the_card)
    monkeypatch.setattr(noises, "key_words", lambda keys, device: like(torch.zeros(len(keys), 2, dtype=torch.int64)))
    with pretended_card():
        engine = SamplingEngine(on_card(lambda: ready), 10, 0.25, "cuda", levels=255)
        images = engine.noise.placed(like(torch.rand(2, *SHAPE)))
        phase = Phase("estimate", 20, 5)
        for noisy in engine.noise.blocks(images, ["a", "b"], 0, phase, 1, 3):
            assert noisy.device.type == "cuda" and noisy.shape == (10, *SHAPE)
            assert noisy.dtype == {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype, torch.float32)
            assert noisy.is_contiguous(memory_format=torch.channels_last)
            classes, finite = engine._classes(noisy)
            assert classes.device.type == finite.device.type == "cuda"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_passes_that_images_share_are_made_and_counted_on_the_card(dtype, monkeypatch):
    monkeypatch.setattr(noises, "compiler_problem", lambda device: "none here")
    table = DeviceTable.of(LatticeLaw(0.25, 255), "cpu")
    monkeypatch.setattr(DeviceTable, "of", lambda law, device: DeviceTable(*map(like, table[:3]), *table[3:]))
    ready = prepare(network(), dtype=dtype)
    with pretended_card():
        engine = SamplingEngine(on_card(lambda: ready), 10, 0.25, "cuda", levels=255)
        shared, images = SharedPasses(engine, 16), engine.noise.placed(like(torch.rand(2, *SHAPE)))
        asked = [Asked(("a",), Phase("estimate/3", 23, 23), 0, 1), Asked(("b",), Phase("select", 40, 40), 0, 1)]
        total = shared._totals(asked, images, [0, 1], 0)
    assert total.device.type == "cuda" and total.shape == (2, 11) and shared.passes == 4


class Planted(nn.Module):
    """A network with a fault."""

    def __init__(self, fault):
        super().__init__()
        self.inner, self.fault = network(), fault

    def forward(self, x):
        if self.fault == "wrong device":
            x = x + torch.zeros(SHAPE)
        elif self.fault == "value read":
            x = x if float(x.sum()) > 0 else -x
        elif self.fault == "float64":
            x = x.double()
        return self.inner(x)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("wrong device", "same device"),
        ("value read", "_local_scalar_dense"),
        ("float64", "should be the same"),
    ],
)
def test_planted_faults_are_caught(fault, message):
    with pretended_card():
        model = on_card(lambda: Planted(fault))
        with pytest.raises(Exception, match=message):
            model(like(torch.rand(4, *SHAPE)))
