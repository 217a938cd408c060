"""Narrow convolutions that learn, on a CPU: the same layers, gradients and files as without them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from acr_ray.data import open_images
from acr_ray.models.residual import CifarResNet
from acr_ray.settings import load_recipe
from acr_ray.smoothing.narrow import convolution
from acr_ray.training import narrow
from acr_ray.training.group import Group
from acr_ray.training.narrow import NarrowConv2d, pack, packed_once, use_narrow, weight_gradient
from acr_ray.training.networks import build_networks, compile_blocks
from acr_ray.training.precision import in_precision, lowered_once
from tests.fakes.card import like, on_card, pretended_card
from tests.fakes.interpreter import numbers

WIDTHS = ((16, 16), (16, 32), (32, 16), (64, 64))


def conv(inputs=16, outputs=16, stride=1, bias=False):
    torch.manual_seed(inputs + outputs)
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def exchanged(layer):
    """The same layer with its own copy of the weights, exchanged."""
    holder = nn.Sequential(copy.deepcopy(layer))
    assert use_narrow(holder) == 1
    return holder[0]


@pytest.fixture
def float32(monkeypatch):
    """The operations in float32, to compare them with torch's without bfloat16's rounding."""
    monkeypatch.setattr(narrow, "LOWER", (torch.float32,))


def network(depth=8):
    torch.manual_seed(0)
    return CifarResNet(depth, 3, 10)


def test_names_parameters_modes_and_biases_stay_what_they_are():
    plain = nn.Sequential(conv(bias=True), nn.Sequential(conv(), nn.BatchNorm2d(16)), conv(bias=True).eval())
    plain[1][0].weight.requires_grad_(False)
    before, state = dict(plain.named_parameters()), list(plain.state_dict())
    modes = [module.training for module in plain.modules()]
    assert use_narrow(plain) == 3
    after = dict(plain.named_parameters())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert list(plain.state_dict()) == state and [module.training for module in plain.modules()] == modes
    assert [type(plain[0]), type(plain[1][0]), type(plain[2])] == [NarrowConv2d] * 3
    assert plain[0].bias is not None and plain[1][0].bias is None and not plain[1][0].weight.requires_grad
    assert use_narrow(plain) == 0, "once is enough"


class Subclass(nn.Conv2d):
    pass


def hooked():
    layer = conv()
    layer.register_forward_hook(lambda *a: None)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: conv(stride=2),
        lambda: conv(3, 16),
        lambda: conv(8, 64),
        lambda: conv(64, 128),
        lambda: conv(16, 10),
        lambda: nn.Conv2d(16, 16, 3),
        lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16),
        lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"),
        lambda: Subclass(16, 16, 3, padding=1),
        lambda: nn.utils.parametrizations.spectral_norm(conv()),
        lambda: nn.utils.weight_norm(conv()),
        hooked,
    ],
)
def test_other_layers_are_left_alone(build):
    holder = nn.ModuleDict({"one": build(), "two": nn.Sequential(build())})
    before = list(holder.modules())
    assert use_narrow(holder) == 0 and list(holder.modules()) == before


def test_a_layer_that_stands_in_two_places_stays_one():
    layer = conv()
    holder = nn.ModuleDict({"a": layer, "b": layer})
    use_narrow(holder)
    assert holder["a"].weight is holder["b"].weight is layer.weight


def gradients(module, x, of_output, where=torch.float32):
    """Output and gradients of input and parameters, in float64."""
    x = x.to(where).requires_grad_()
    y = module(x)
    found = torch.autograd.grad(y, [x, *module.parameters()], of_output.to(y.dtype))
    return [value.double() for value in (y.detach(), *found)]


@pytest.mark.parametrize("size", [(8, 8), (5, 6), (1, 2)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
def test_output_and_gradients_are_autograds(inputs, outputs, bias, size, float32):
    plain = conv(inputs, outputs, bias=bias)
    x, of_output = numbers(3, inputs, *size), numbers(3, outputs, *size, seed=1)
    expected = gradients(copy.deepcopy(plain).double(), x, of_output, torch.float64)
    for order in (torch.contiguous_format, torch.channels_last):
        own = exchanged(plain).to(memory_format=order)
        found = gradients(own, x.contiguous(memory_format=order), of_output)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=2e-6 * float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
def test_under_autocast_rounding_is_that_of_plain_autocast(inputs, outputs, dtype):
    plain = conv(inputs, outputs, bias=True)
    x, of_output = numbers(4, inputs, 8, 8), numbers(4, outputs, 8, 8, seed=1)
    exact = gradients(copy.deepcopy(plain).double(), x, of_output, torch.float64)
    with torch.autocast("cpu", dtype):
        found, usual = (gradients(module, x, of_output) for module in (exchanged(plain), plain))
        assert exchanged(plain)(x).dtype == dtype
    for a, b, truth in zip(found, usual, exact, strict=True):
        error, allowed = (a - truth).norm(), (b - truth).norm()
        assert 0 < error <= 1.3 * allowed + 1e-6 * truth.norm() and error < 0.01 * truth.norm()


class Called(TorchDispatchMode):
    """Counts calls of the operations that narrow layers are made of."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "acr_ray" in str(function) or "convolution_backward" in str(function):
            self.names.append(function._schema.name.split("::")[1])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("of_x", "of_weight", "width", "wanted"),
    [
        (True, False, 16, ["narrow_convolution"]),
        (False, True, 16, ["narrow_weight_gradient"]),
        (False, True, 64, ["convolution_backward"]),
        (True, True, 16, ["narrow_convolution", "narrow_weight_gradient"]),
        (True, True, 32, ["convolution_backward", "narrow_convolution"]),
    ],
)
def test_only_gradients_that_are_asked_for_are_computed(of_x, of_weight, width, wanted):
    own, x = exchanged(conv(width, width)).requires_grad_(of_weight), numbers(2, width, 4, 4).requires_grad_(of_x)
    with torch.autocast("cpu", torch.bfloat16):
        y = own(x)
    with Called() as called:
        y.float().sum().backward()
    # The operation itself calls torch's on a CPU.
    assert sorted({name for name in called.names if "backward" not in name or width > 16}) == wanted
    assert (x.grad is not None) == of_x and (own.weight.grad is not None) == of_weight


@pytest.mark.parametrize("size", [(8, 7), (4, 66)], ids=str)
def test_images_that_it_was_not_made_for_pass_torchs_layer(size, float32):
    plain = conv(bias=True)
    x = numbers(2, 16, *size)
    with Called() as called:
        assert torch.equal(exchanged(plain)(x), plain(x))
    assert not called.names


def test_in_float32_it_is_torchs_layer():
    plain = conv(bias=True)
    x = numbers(2, 16, 8, 8)
    assert torch.equal(exchanged(plain)(x), plain(x))


def test_a_gradient_of_a_gradient_is_refused_and_not_wrong(float32):
    own, x = exchanged(conv()), numbers(2, 16, 4, 4).requires_grad_()
    with pytest.raises(RuntimeError):
        (slope,) = torch.autograd.grad(own(x).pow(2).sum(), x, create_graph=True)
        slope.pow(2).sum().backward()


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


def test_weights_are_packed_once_while_they_do_not_change(monkeypatch):
    plain = nn.Sequential(conv(bias=True), nn.ReLU(), conv(bias=True))
    use_narrow(plain)
    x = numbers(2, 16, 4, 4).requires_grad_()
    calls = []
    monkeypatch.setattr(narrow, "pack", lambda *a: calls.append(a) or pack(*a))
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(x)
        assert len(calls) == 4
        with packed_once(plain.modules(), torch.bfloat16):
            for _ in range(3):
                found = plain(x)
                assert torch.equal(found, expected)
                assert torch.autograd.grad(found.float().sum(), x)[0].isfinite().all()
        assert len(calls) == 8
        with torch.no_grad():
            plain[0].weight.zero_()
            plain[0].bias.zero_()
        assert not torch.equal(plain(x), expected)
    with pytest.raises(KeyError), packed_once(plain.modules(), torch.bfloat16):
        raise KeyError("an attack that fails")
    assert plain[0].ready is None and plain[2].ready is None


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
        F.cross_entropy(lower(x), torch.arange(4)).backward()
    model.eval().requires_grad_(False)
    with lowered_once(lower):
        for _ in range(2):
            at = x.clone().requires_grad_()
            torch.autograd.grad(F.cross_entropy(lower(at), torch.arange(4)), at)
    with torch.no_grad():
        lower(x)
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


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (32, 16)])
def test_torch_finds_the_operations_declared_as_they_are(inputs, outputs):
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    weight = numbers(outputs, inputs, 3, 3)
    for back in (False, True):
        torch.library.opcheck(pack, (weight, torch.bfloat16, back), test_utils=tests)
    x, of_output = numbers(2, inputs, 5, 4).bfloat16(), numbers(2, outputs, 5, 4).bfloat16()
    torch.library.opcheck(weight_gradient, (x, of_output), test_utils=tests)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
def test_what_is_computed_stays_on_the_card_in_the_right_precision_shape_and_order(inputs, outputs, dtype):
    with pretended_card():
        own = on_card(lambda: exchanged(conv(inputs, outputs, bias=True)))
        weight, x = own.weight, like(torch.zeros(5, inputs, 8, 8, dtype=dtype))
        y = own(x)
        assert (y.device.type, y.dtype, y.shape) == ("cuda", dtype, (5, outputs, 8, 8))
        assert y.is_contiguous(memory_format=torch.channels_last)
        ready = own.pack(dtype)
        assert all(value.device.type == "cuda" and value.dtype == dtype for value in ready)
        # Backward, piece by piece: torch's autograd asks for a real card.
        back = convolution(y, ready.back, None, None, 1, narrow.pixels_together(outputs, 1), False)
        assert (back.device.type, back.dtype, back.shape) == ("cuda", dtype, x.shape)
        assert back.is_contiguous(memory_format=torch.channels_last)
        found = narrow._of_weight(x, weight, y)
        assert (found.device.type, found.dtype, found.shape) == ("cuda", torch.float32, weight.shape)


class Faulty(NarrowConv2d):
    """A layer with one of the faults below."""

    fault = ""

    def forward(self, x):
        with pytest.MonkeyPatch.context() as patch:
            if self.fault == "bias forgotten":
                patch.setattr(self, "bias", None)
            return super().forward(x)

    def pack(self, dtype):
        ready = super().pack(dtype)
        weight = self.weight.detach()
        if self.fault == "taps transposed":
            return ready._replace(forward=pack(weight.transpose(2, 3), dtype, False))
        if self.fault == "not turned around":
            return ready._replace(back=pack(weight.flip(2, 3), dtype, True))
        return ready


@pytest.mark.parametrize(
    "fault", ["none", "bias forgotten", "taps transposed", "not turned around", "weights' gradient transposed"]
)
def test_planted_faults_are_caught(fault, monkeypatch, float32):
    monkeypatch.setattr(narrow, "NarrowConv2d", Faulty)
    monkeypatch.setattr(Faulty, "fault", fault)
    if fault.startswith("weights'"):
        monkeypatch.setattr(narrow, "weight_gradient", lambda x, g: weight_gradient(x, g).transpose(2, 3))
    if fault == "none":
        test_output_and_gradients_are_autograds(16, 16, True, (8, 8), None)
    else:
        with pytest.raises((AssertionError, RuntimeError)):
            test_output_and_gradients_are_autograds(16, 16, True, (8, 8), None)
