"""Networks whose narrow convolutions are exchanged: the same function as before, and words that say what was done."""

import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from acr_ray.models import build_model
from acr_ray.models.residual import CifarResNet
from acr_ray.smoothing import arithmetic
from acr_ray.smoothing.arithmetic import FUSED, described, folded, prepare
from acr_ray.smoothing.narrow import NarrowConvolution, fuse_narrow
from tests.fakes.card import like, on_card, pretended_card
from tests.smoothing.test_arithmetic import lived_in

SHAPE = (16, 8, 8)


def conv(inputs=16, outputs=16, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def fused(network, x):
    """The network with its convolutions exchanged, how many, and those of them that add and that apply a ReLU.

    It must answer as the network did.
    """
    network = network.eval().requires_grad_(False)
    graph = fx.symbolic_trace(copy.deepcopy(network))
    expected = network(x.clone())
    count = fuse_narrow(graph)
    found = graph(x.clone())
    assert expected.std() > 0.01 and torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    modules = dict(graph.named_modules())
    calls = [node for node in graph.graph.nodes if isinstance(modules.get(str(node.target)), NarrowConvolution)]
    assert len(calls) == count
    return count, sum(len(node.args) == 2 for node in calls), sum(modules[str(node.target)].relu for node in calls)


def images(*shape, seed=0):
    return torch.randn(4, *(shape or SHAPE), generator=torch.Generator().manual_seed(seed))


def test_a_cifar_resnet_is_fused_whole():
    network = folded(lived_in(CifarResNet(20, 3, 10)).requires_grad_(False))
    # The stem, and two convolutions for each of nine blocks, the second with the shortcut; all with a ReLU.
    assert fused(network, images(3, 32, 32)) == (19, 9, 19)


@pytest.mark.parametrize("shape", [(3, 9, 9), (3, 7, 10), (3, 70, 66)])
def test_images_of_odd_or_large_size_give_the_same_answers(shape):
    network = folded(lived_in(CifarResNet(8, 3, 10)).requires_grad_(False))
    assert fused(network, images(*shape)) == (7, 3, 7)


def test_torchvisions_resnet_keeps_its_stem_and_wide_layers():
    network = build_model("resnet18", 10, (3, 64, 64), (0.5,) * 3, (0.5,) * 3, 0)
    network = folded(lived_in(network).requires_grad_(False))
    # Of 20 convolutions the four of the first stage, 64 channels wide: ReLUs in place, ``out += identity``.
    assert fused(network, images(3, 64, 64)) == (4, 2, 4)
    graph = copy.deepcopy(network)
    fuse_narrow(graph)
    left = [module for module in graph.modules() if isinstance(module, nn.Conv2d)]
    assert len(left) == 20 and (7, 7) in {module.kernel_size for module in left}


class Network(nn.Module):
    """Some layers, and a forward that is a function of them and ``x``."""

    def __init__(self, way, **layers):
        super().__init__()
        self.way = way
        for name, layer in {"a": conv(), "b": conv(), **layers}.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.way(self, x)


def pre_activation(net, x):
    # The sum goes on twice: into the next block, and around it.
    x = net.b(F.relu(net.a(F.relu(x)))) + x
    return net.d(F.relu(net.c(F.relu(x)))) + x


def weighed(net, x):
    # As squeeze-excitation does: what is added has one number a channel.
    return net.a(x) + net.b(x).mean((2, 3), keepdim=True)


def in_place_before_the_sum(net, x):
    x, y = x * 1, None
    y = net.a(x)
    x = net.act(x)
    return y + x


def in_place_before_the_relu(net, x):
    x = x * 1
    y = net.a(x)
    z = F.relu(x, inplace=True)
    return torch.relu(y) * z.mean()


def in_place_between_sum_and_relu(net, x):
    x, z = x * 1, x * 2
    y = net.a(x) + z
    z = z.mul_(3)
    return torch.relu(y) * z


def in_place_through_a_view(net, x):
    x = x * 1
    y = net.a(x)
    x.view(x.shape).relu_()
    return y + x


def sum_into_the_shortcut(net, x):
    x = x * 1
    y = x.add_(net.a(x * 2))
    return x + y.relu()


def branches(net, x):
    return F.relu(net.a(x)) + net.b(x)


def in_place_elsewhere(net, x):
    # As in a residual network: the ReLU writes over what only it reads, before this convolution.
    y = net.act(net.a(x))
    z = net.b(y)
    z += x
    return net.act(z)


CASES = {
    "pre-activation": (pre_activation, {"c": conv(), "d": conv()}, (4, 2, 2)),
    "shared by two calls": (lambda net, x: net.a(net.a(x)), {}, (2, 0, 0)),
    "shared, with a ReLU once": (lambda net, x: net.a(F.relu(net.a(x))), {}, (2, 0, 1)),
    "output used twice": (lambda net, x: (lambda y: F.relu(y) + y)(net.a(x)), {}, (1, 0, 0)),
    "output used after its sum": (lambda net, x: (lambda y: (y + x) * y)(net.a(x)), {}, (1, 0, 0)),
    "output added to itself": (lambda net, x: (lambda y: y + y)(net.a(x)), {}, (1, 0, 0)),
    "sum used twice": (lambda net, x: (lambda y: F.relu(y) + y)(net.a(x) + x), {}, (1, 1, 0)),
    "shortcut first": (lambda net, x: F.relu(x + net.a(x)), {}, (1, 1, 1)),
    "two convolutions added": (lambda net, x: F.relu(net.a(x) + net.b(x)), {}, (2, 1, 1)),
    "branches": (branches, {}, (2, 1, 1)),
    "two in a row, with module and method": (lambda net, x: net.act(net.b(net.a(x).relu())), {}, (2, 0, 2)),
    "squeeze-excitation": (weighed, {}, (2, 1, 0)),
    "alpha": (lambda net, x: torch.add(net.a(x), x, alpha=2), {}, (1, 0, 0)),
    "alpha by method": (lambda net, x: net.a(x).add(x, alpha=2), {}, (1, 0, 0)),
    "a number": (lambda net, x: net.a(x) + 2, {}, (1, 0, 0)),
    "a size": (lambda net, x: F.relu(net.a(x) + x.size(0)), {}, (1, 1, 1)),
    "difference": (lambda net, x: F.relu(net.a(x) - x), {}, (1, 0, 0)),
    "other functions": (lambda net, x: net.b(F.relu6(net.a(x))).clamp(min=0), {}, (2, 0, 0)),
    "leaky": (lambda net, x: net.act(net.a(x)), {"act": nn.LeakyReLU()}, (1, 0, 0)),
    "by keyword": (lambda net, x: net.a(input=x), {}, (0, 0, 0)),
    "widening, stride 2": (lambda net, x: F.relu(net.a(x) + net.b(x)), {n: conv(16, 32, 2) for n in "ab"}, (2, 1, 1)),
    "in place, before the sum": (in_place_before_the_sum, {}, (1, 0, 0)),
    "in place, before the ReLU": (in_place_before_the_relu, {}, (1, 0, 0)),
    "in place, between sum and ReLU": (in_place_between_sum_and_relu, {}, (1, 1, 0)),
    "in place, through a view": (in_place_through_a_view, {}, (1, 0, 0)),
    "in place, into the shortcut": (sum_into_the_shortcut, {}, (1, 0, 0)),
    "in place, elsewhere": (in_place_elsewhere, {}, (2, 1, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_stays_the_same_function(name):
    way, layers, expected = CASES[name]
    torch.manual_seed(0)
    network = Network(way, **{"act": nn.ReLU(inplace=True), **layers})
    assert fused(network, images()) == expected


def classifier(way=lambda net, x: net.fc(net.a(x).mean((2, 3))), **layers):
    return Network(way, fc=nn.Linear(16, 10), **layers)


WORDS = {
    "cifar_resnet20": (lambda: CifarResNet(20, 3, 10), True),
    "digits_resnet": (lambda: build_model("digits_resnet", 10, (1, 8, 8), (0.5,), (0.5,), 0), True),
    "plain": (classifier, True),
    "wide": (lambda: classifier(a=nn.Conv2d(16, 16, 5, padding=2)), False),
    "by keyword": (lambda: classifier(lambda net, x: net.fc(net.a(input=x).mean((2, 3)))), False),
    "no linear layer": (lambda: Network(lambda net, x: net.a(x).mean((2, 3))), False),
    "not traced": (lambda: classifier(lambda net, x: net.fc(net.a(x).mean((2, 3)) * float(x.sum() > 0))), False),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_certificates_words_say_what_was_done(name, dtype, monkeypatch):
    build, expected = WORDS[name]
    model = build()
    done = []
    monkeypatch.setattr(arithmetic, "fuse_narrow", lambda graph: done.append(fuse_narrow(graph)) or done[-1])
    # No card is here: what would be moved to it and compiled stays where it is.
    monkeypatch.setattr(arithmetic, "Compiled", lambda network, device, rows: network)
    monkeypatch.setattr(nn.Module, "to", lambda self, *a, device=None, **k: as_it_was(self, *a, **k))
    ready = prepare(model, device="cuda:0", dtype=dtype, compiled=True)
    assert any(isinstance(layer, NarrowConvolution) for layer in ready.modules()) == (sum(done) > 0) == expected
    words = described(model, "cuda:0", dtype, True)
    assert (FUSED in words) == expected and words.startswith(f"{dtype} on cuda:0")


as_it_was = nn.Module.to


@pytest.mark.parametrize(
    ("device", "dtype", "compiled"),
    [
        ("cuda", "bfloat16", False),
        ("cuda", "float32", True),
        ("cuda", "tf32", True),
        ("cpu", "bfloat16", True),
        ("cpu", "float16", False),
    ],
)
def test_nothing_is_said_or_done_elsewhere(device, dtype, compiled, monkeypatch):
    monkeypatch.setattr(arithmetic, "fuse_narrow", lambda graph: pytest.fail("fused"))
    monkeypatch.setattr(arithmetic, "Compiled", lambda network, device, rows: network)
    monkeypatch.setattr(nn.Module, "to", lambda self, *a, device=None, **k: as_it_was(self, *a, **k))
    prepare(CifarResNet(8, 3, 10), device=device, dtype=dtype, compiled=compiled)
    assert FUSED not in described(CifarResNet(8, 3, 10), device, dtype, compiled)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_fused_network_computes_on_the_card_in_its_precision(dtype):
    ready = arithmetic._rounded(CifarResNet(8, 3, 10), dtype)
    assert fuse_narrow(ready.network) == 7
    lower = ready.dtype
    with pretended_card():
        network = on_card(lambda: ready.to(memory_format=torch.channels_last))
        seen = []
        for module in network.modules():
            if isinstance(module, NarrowConvolution):
                module.register_forward_hook(lambda module, args, found: seen.append(found))
                module.layer.register_forward_hook(lambda *a: pytest.fail("passed the layer"))
        answer = network(like(torch.rand(5, 3, 32, 32)))
        assert answer.device.type == "cuda" and answer.dtype == torch.float32 and answer.shape == (5, 10)
        assert len(seen) == 7 and all(found.device.type == "cuda" and found.dtype == lower for found in seen)
        assert all(found.is_contiguous(memory_format=torch.channels_last) for found in seen)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("in place") and "elsewhere" not in name])
def test_what_moves_a_convolution_too_far_is_caught(name, monkeypatch):
    monkeypatch.setattr("acr_ray.smoothing.narrow._overwrites", lambda *a: False)
    with pytest.raises(AssertionError):
        test_it_stays_the_same_function(name)


@pytest.mark.parametrize("fault", ["ReLU forgotten", "ReLU where none is", "shortcut forgotten", "another's weights"])
def test_planted_faults_are_caught(fault, monkeypatch):
    class Faulty(NarrowConvolution):
        def __init__(self, layer, relu):
            if fault == "another's weights":
                layer = copy.deepcopy(layer)
                layer.weight.data = layer.weight.data.roll(1, 1)
            super().__init__(layer, relu=relu if "ReLU" not in fault else fault == "ReLU where none is")

        def forward(self, x, residual=None):
            return super().forward(x, None if fault == "shortcut forgotten" else residual)

    monkeypatch.setattr("acr_ray.smoothing.narrow.NarrowConvolution", Faulty)
    with pytest.raises(AssertionError):
        test_it_stays_the_same_function("pre-activation")
