"""Lower precisions with accumulation, compression and several workers; the optimizer after steps that overflowed."""

import pytest
import torch
import torch.distributed as dist

from acr_ray.data import open_images
from acr_ray.models import build_model
from acr_ray.settings import load_recipe
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.networks import compile_blocks
from acr_ray.training.optimizer import begin_momentum
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
