"""Lower precisions with accumulation, compression and several workers; the optimizer after steps that overflowed."""

import contextlib

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from acr_ray.data import open_images
from acr_ray.models import build_model
from acr_ray.settings import load_recipe
from acr_ray.settings.recipe import AttackSettings
from acr_ray.training import attack as attacks
from acr_ray.training.attack import attack_every_row, attack_noise
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.networks import compile_blocks
from acr_ray.training.optimizer import begin_momentum
from acr_ray.training.precision import in_precision, lowered_once
from tests.fakes.gloo import in_workers

CASES = {
    "bfloat16, accumulated": {"training.precision": "bfloat16", "training.accumulate": 2},
    "float16, accumulated, compressed": {
        "training.precision": "float16",
        "training.accumulate": 3,
        "training.gradient_compression": "float16",
    },
}


def train_and_compare(rank, world, changes):
    images = open_images("digits", None, "train").subset(range(0, 1297, 16))
    recipe = load_recipe("digits-gaussian").change(
        {"training.epochs": 1, "training.milestones": (), "training.batch_size": 65 * 4, **changes}
    )
    trainer = Trainer(recipe, images, 0, Group())
    trainer.run()
    for parameter in trainer.module.parameters():
        first = parameter.detach().clone()
        dist.broadcast(first, 0)
        assert torch.equal(first, parameter) and torch.isfinite(parameter).all()


@pytest.mark.parametrize("case", CASES)
def test_workers_accumulate_in_lower_precision_and_agree(case):
    """Autocast hid DDP's no_sync, so accumulation of two workers broke off; shares may differ by one (65 of a step)."""
    in_workers(2, train_and_compare, CASES[case])


def weights(overflow, fused, begun):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 3))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4, fused=fused)
    if begun:
        begin_momentum(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    generator = torch.Generator().manual_seed(1)
    for number in range(6):
        optimizer.zero_grad(set_to_none=True)
        loss = network(torch.randn(4, 3, 8, 8, generator=generator)).square().mean()
        scaler.scale(loss * (float("inf") if number in overflow else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.parametrize("overflow", [(), (3,), (0,), (0, 1)])
def test_momentum_that_begins_at_zero_is_momentum_that_begins_with_the_gradient(overflow):
    plain = weights(overflow, fused=False, begun=False)
    for begun in (weights(overflow, fused=False, begun=True), weights(overflow, fused=True, begun=True)):
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(plain, begun, strict=True))
        assert all(torch.isfinite(b).all() for b in begun)


def test_one_block_of_a_kind_is_compiled_for_all(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append((type(self), options)))
    recipe = load_recipe("cifar10-gaussian-0.5").change({"model.architecture": "cifar_resnet20"})
    network = build_model(recipe.model.architecture, 10, (3, 32, 32), (0.5,) * 3, (0.5,) * 3, seed=0)
    assert len(compile_blocks(network)) == 9 and {kind.__name__ for kind, _ in compiled} == {"BasicBlock"}
    assert all(options == {"dynamic": False} for _, options in compiled)
    compiled.clear()
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    assert compile_blocks(plain) == [plain]


@pytest.mark.parametrize("attack", [attack_noise, attack_every_row])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_an_attack_converts_the_weights_once_and_finds_what_it_did(precision, attack, monkeypatch):
    """They were converted in each of its passes. The parameters themselves, which DDP watches, stay where they are."""
    module = build_model("digits_resnet", 10, (1, 8, 8), (0.5,), (0.5,), seed=0).eval()
    network, settings = in_precision(module, precision, "cpu"), AttackSettings(enabled=True, steps=3, epsilon=0.1)
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.rand(24, 1, 8, 8, generator=generator) for _ in range(2))
    labels, before = network(x + noise).argmax(1), dict(module.named_parameters())
    weighted = sum(isinstance(inner, (torch.nn.Conv2d, torch.nn.Linear)) for inner in module.modules())

    def run():
        with Counting("_to_copy") as counted:
            found = attack(network, x, labels, noise, settings, scale=1024.0 if precision == "float16" else 1.0)
        return found, counted.times

    once, few = run()
    monkeypatch.setattr(attacks, "lowered_once", lambda network: contextlib.nullcontext())
    often, many = run()
    assert many - few == 2 * (weighted + 1) and weighted == 4  # the linear layer has a bias, too
    assert torch.equal(once.noise, often.noise) and torch.equal(once.active, often.active) and once.active[-1] > 0
    assert dict(module.named_parameters()) == before
    assert all(value.dtype is torch.float32 and value.requires_grad for value in before.values())


class Counting(TorchDispatchMode):
    """Counts one operation of torch."""

    def __init__(self, name):
        super().__init__()
        self.name, self.times = name, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.times += func.overloadpacket.__name__ == self.name
        return func(*args, **(kwargs or {}))


def test_weights_stay_as_they_are_if_an_attack_fails():
    module = build_model("digits_resnet", 10, (1, 8, 8), (0.5,), (0.5,), seed=0)
    before = dict(module.named_parameters())
    with pytest.raises(KeyError), lowered_once(in_precision(module, "bfloat16", "cpu")):
        assert sum(value.dtype is torch.bfloat16 for value in module.parameters()) == 5
        raise KeyError
    assert dict(module.named_parameters()) == before
    with lowered_once(module):
        assert dict(module.named_parameters()) == before
