"""Networks with narrow convolutions that learn, on a CPU: the same weights, files and compiled blocks as without."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from acr_ray.data import open_images
from acr_ray.models.residual import CifarResNet
from acr_ray.settings import load_recipe
from acr_ray.training import narrow
from acr_ray.training.group import Group
from acr_ray.training.narrow import NarrowConv2d, use_narrow
from acr_ray.training.networks import build_networks, compile_blocks
from acr_ray.training.precision import in_precision, lowered_once
from tests.fakes.device import Pretended
from tests.fakes.interpreter import numbers


@pytest.fixture
def float32(monkeypatch):
    """The operations in float32, to compare them with torch's without bfloat16's rounding."""
    monkeypatch.setattr(narrow, "LOWER", {"float32": torch.float32})


def network(depth=8):
    torch.manual_seed(0)
    return CifarResNet(depth, 3, 10)


def test_a_network_learns_as_with_torchs_layers(float32):
    networks = plain, own = network(), network()
    assert use_narrow(own) == 4, "of three blocks all but the two of stride 2"
    x, y = numbers(8, 3, 16, 16), torch.arange(8)
    for model in networks:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    for a, b in zip(own.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_checkpoints_go_back_and_forth(float32):
    plain, own = network(), network()
    use_narrow(own)
    x = numbers(4, 3, 8, 8)
    with torch.no_grad():
        for value in plain.parameters():
            value.add_(0.1 * numbers(*value.shape))
        own.load_state_dict(plain.state_dict())
        assert torch.allclose(own.eval()(x), plain.eval()(x), atol=1e-4)
        again = network()
        again.load_state_dict(copy.deepcopy(own).state_dict())
        assert torch.equal(again.eval()(x), plain(x))


def test_an_attacks_passes_are_those_of_packed_weights():
    own = network()
    use_narrow(own)
    compile_with(own, "eager")
    lower = in_precision(own, "bfloat16", "cpu")
    layers = [module for module in own.modules() if isinstance(module, NarrowConv2d)]
    with lowered_once(lower):
        assert all(layer.ready is not None for layer in layers)
    assert all(layer.ready is None for layer in layers)


def compile_with(model, backend):
    """Compile a network's blocks as a run does, but quickly."""
    compile = nn.Module.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "compile", lambda self, **options: compile(self, backend=backend, **options))
        return compile_blocks(model)


def graphs(model):
    """How many graphs training, an attack and an evaluation in bfloat16 take, and why any was broken."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert len(compile_with(model, "aot_eager")) == 3
    lower = in_precision(model, "bfloat16", "cpu")
    x = numbers(4, 3, 8, 8)
    for _ in range(2):
        model.eval().requires_grad_(False)
        with lowered_once(lower):
            for _ in range(2):
                at = x.clone().requires_grad_()
                torch.autograd.grad(F.cross_entropy(lower(at), torch.arange(4)), at)
        model.train().requires_grad_(True)
        F.cross_entropy(lower(x), torch.arange(4)).backward()
    counters = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"], dict(counters["graph_break"])


@pytest.mark.slow
def test_compiled_blocks_are_no_more_than_without():
    usual, breaks = graphs(network())
    assert not breaks
    own = network()
    assert use_narrow(own) > 0
    found, breaks = graphs(own)
    assert not breaks and 0 < found <= usual


def test_compiled_blocks_are_not_broken_and_compute_what_they_do_otherwise():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    own = network()
    use_narrow(own)
    compiled = copy.deepcopy(own)
    compile_with(compiled, "aot_eager")
    x = numbers(4, 3, 8, 8)
    found = []
    for model in (own, compiled):
        loss = F.cross_entropy(in_precision(model, "bfloat16", "cpu")(x), torch.arange(4))
        found.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 3 and not counters["graph_break"]
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=0.02, atol=0.02 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("device", "precision", "compiled", "expected"),
    [
        ("cuda", "bfloat16", True, 16),
        ("cuda", "float16", True, 16),
        ("cuda", "bfloat16", False, 0),
        ("cuda", "float32", True, 0),
        ("cuda", "tf32", True, 0),
        ("cpu", "bfloat16", True, 0),
    ],
)
def test_a_run_uses_them_compiled_on_a_card_in_lower_precision_only(device, precision, compiled, expected, monkeypatch):
    images = open_images("digits", None, "train").subset(range(8))
    recipe = load_recipe("digits-gaussian").change(
        {
            "training.precision": precision,
            "training.compile": compiled,
            "model.architecture": "cifar_resnet20",
        }
    )
    moved = nn.Module.to
    monkeypatch.setattr(nn.Module, "to", lambda self, *a, device=None, **k: moved(self, *a, **k))
    built = build_networks(recipe, images, 0, Group(), device)
    assert sum(isinstance(module, NarrowConv2d) for module in built.module.modules()) == expected
    plain = build_networks(recipe.change({"training.compile": False}), images, 0, Group(), "cpu").module
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in built.module.state_dict().items()), (
        "the same weights by the same names"
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_step_waits_for_nothing_and_mixes_no_precisions(dtype):
    own = network()
    use_narrow(own)
    lower, x = in_precision(own, dtype, "cpu"), numbers(4, 3, 16, 16)
    with Pretended() as seen:
        F.cross_entropy(lower(x), torch.arange(4)).backward()
    assert not seen.waits and not seen.float64 and not seen.mixed
