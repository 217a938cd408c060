"""Narrow convolutions that learn, on a CPU: the same layers, gradients and files as without them."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from acr_ray.smoothing.narrow import convolution
from acr_ray.training import narrow
from acr_ray.training.narrow import WIDEST_OWN, NarrowConv2d, pack, packed_once, use_narrow, weight_gradient
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
    monkeypatch.setattr(narrow, "LOWER", {"float32": torch.float32})


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
        (True, True, WIDEST_OWN, ["narrow_convolution", "narrow_weight_gradient"]),
        (True, True, 64, ["convolution_backward", "narrow_convolution"]),
    ],
)
def test_only_gradients_that_are_asked_for_are_computed(of_x, of_weight, width, wanted):
    own, x = exchanged(conv(width, width)).requires_grad_(of_weight), numbers(2, width, 4, 4).requires_grad_(of_x)
    with torch.autocast("cpu", torch.bfloat16):
        y = own(x)
    with Called() as called:
        y.float().sum().backward()
    # The operation itself calls torch's on a CPU.
    assert sorted({name for name in called.names if "backward" not in name or width > WIDEST_OWN}) == wanted
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
