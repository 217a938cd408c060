"""The narrow convolution on a CPU: what its GPU kernel is held to."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from acr_ray.smoothing.narrow import (
    LARGEST,
    NarrowConvolution,
    convolution,
    packed,
    pixels_together,
    unpacked,
)
from tests.fakes.card import like, pretended_card
from tests.fakes.interpreter import numbers

# Channels in and out, height, width, stride. Pairs of pixels need an even width; single ones take any size.
SHAPES = (
    (1, 16, 8, 8, 1),
    (3, 16, 5, 6, 1),
    (3, 32, 4, 2, 1),
    (8, 64, 3, 4, 1),
    (16, 16, 12, 10, 1),
    (16, 32, 9, 7, 2),
    (16, 16, 8, 8, 2),
    (32, 32, 7, 5, 1),
    (32, 64, 8, 10, 2),
    (64, 64, 8, 8, 1),
    (64, 16, 1, 1, 1),
    (64, 32, 3, 3, 2),
)


def layer_of(inputs, outputs, stride=1, bias=True):
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias).requires_grad_(False)
    layer.weight.copy_(numbers(*layer.weight.shape, seed=1) / (9 * inputs) ** 0.5)
    if bias:
        layer.bias.copy_(numbers(outputs, seed=2))
    return layer


@pytest.mark.parametrize(("inputs", "outputs", "stride"), sorted({(a, b, s) for a, b, *_, s in SHAPES}))
def test_packed_weights_are_made_of_the_weights_and_zeros_and_can_be_unpacked(inputs, outputs, stride):
    weight, pixels = numbers(outputs, inputs, 3, 3), pixels_together(inputs, stride)
    ready = packed(weight, stride)
    assert torch.equal(unpacked(ready, inputs, pixels), weight)
    assert ready.shape[2] == pixels * outputs and ready.shape[1] >= 16 and ready.shape[1].bit_count() == 1
    assert ready.is_contiguous() and ready.dtype == weight.dtype
    # Each weight stands once for each pixel of a group, and nothing else is there.
    assert ready.count_nonzero() == pixels * weight.numel()
    assert torch.equal(ready.flatten().sort().values[-5:], weight.flatten().repeat(pixels).sort().values[-5:])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_packed_weights_and_biases_are_those_of_a_product_of_matrices(shape):
    inputs, outputs, height, width, stride = shape
    layer = layer_of(inputs, outputs, stride)
    narrow, x = NarrowConvolution(layer, False), numbers(2, inputs, height, width)
    # As the kernel computes it: for each tap, what a group of pixels reads times its matrix.
    around = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    plain = layer(x)
    groups = [(h, w) for h in range(0, height, stride) for w in range(0, width, stride * narrow.pixels)]
    for h, w in groups:
        seen = around[:, h : h + 3, w : w + narrow.pixels + 2]
        taps = seen.flatten(1, 2) if narrow.pixels == 1 else seen.flatten(2)
        taps = F.pad(taps, (0, narrow.weight.shape[1] - taps.shape[2]))
        found = torch.einsum("btk,tkn->bn", taps, narrow.weight) + narrow.bias
        expected = plain[:, :, h // stride, w // stride : w // stride + narrow.pixels]
        assert torch.allclose(found.view(2, narrow.pixels, outputs), expected.transpose(1, 2), atol=1e-5)
    assert list(narrow.state_dict()) == ["layer.weight", "layer.bias"], "what is packed is no part of a file"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("biased", "adds", "relu"),
    [case for case in itertools.product((False, True), repeat=3) if sum(case) != 1],
    ids=lambda value: "yes" if value else "no",
)
def test_a_layer_is_computed_with_bias_shortcut_and_relu(shape, biased, adds, relu):
    inputs, outputs, height, width, stride = shape
    layer = layer_of(inputs, outputs, stride, biased)
    x = numbers(3, inputs, height, width)
    plain = F.conv2d(x, layer.weight, layer.bias, stride, 1)
    residual = numbers(*plain.shape, seed=3) if adds else None
    expected = plain if residual is None else plain + residual
    found = NarrowConvolution(layer, relu)(x, residual)
    assert torch.allclose(found, expected.relu() if relu else expected, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last) and found.dtype == x.dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_result_in_lower_precision_is_rounded_once(dtype):
    layer = layer_of(16, 16).to(dtype)
    x, residual = numbers(2, 16, 8, 8).to(dtype), (100 * numbers(2, 16, 8, 8, seed=3)).to(dtype)
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), 1, 1) + residual.double()
    found = NarrowConvolution(layer, True)(x, residual)
    assert found.dtype == dtype
    step = torch.finfo(dtype).eps
    assert ((found.double() - exact.relu()).abs() <= exact.abs() * step * 0.51 + 1e-4).all()
    twice = (layer(x) + residual).relu().double()
    assert (twice - exact.relu()).abs().mean() > (found.double() - exact.relu()).abs().mean()


@pytest.mark.parametrize(("inputs", "stride"), [(3, 1), (16, 1), (16, 2), (64, 1)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_overflow_is_seen_and_reaches_its_neighbours_only(inputs, stride, bad):
    layer = layer_of(inputs, 16, stride)
    x = numbers(2, inputs, 8, 8)
    x[1, 0, 4, 4] = bad
    found = NarrowConvolution(layer, False)(x)
    plain = layer(x)
    assert not plain.isfinite().all() and torch.equal(found.isfinite(), plain.isfinite())
    # With a ReLU, what is not a number stays none.
    assert torch.equal(NarrowConvolution(layer, True)(x).isnan(), plain.isnan())


@pytest.mark.parametrize("inputs", [3, 16, 32])
def test_the_memory_order_of_what_comes_in_makes_no_difference(inputs):
    layer, x = layer_of(inputs, 16), numbers(2, inputs, 6, 4)
    residual = numbers(2, 16, 6, 4, seed=3)
    narrow = NarrowConvolution(layer, True)
    turned = numbers(4, 6, inputs, 2).permute(3, 2, 1, 0).copy_(x)
    for a in (x.contiguous(), x.contiguous(memory_format=torch.channels_last), turned):
        assert torch.allclose(narrow(a, residual), narrow(x, residual), atol=1e-6)
        assert torch.equal(narrow.weight, packed(layer.weight, 1))


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((2, 16, 8, 7), "odd: no pairs"),
        ((2, 16, 4, LARGEST + 2), "not measured"),
        ((2, 16, 8, 8), "another precision"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_that_it_was_not_made_for_pass_the_layer(shape, why):
    layer, called = layer_of(16, 16), []
    layer.register_forward_hook(lambda *a: called.append(1))
    x, residual = numbers(*shape), numbers(shape[0], 16, *shape[2:], seed=3)
    narrow = NarrowConvolution(layer, True)
    if why == "another precision":
        narrow.weight = narrow.weight.bfloat16()
    expected = layer(x)
    assert torch.allclose(narrow(x), expected.relu()) and len(called) == 2
    assert torch.allclose(narrow(x, residual), (expected + residual).relu()) and len(called) == 3


@pytest.mark.parametrize(
    "residual", [numbers(1, 16, 1, 1), numbers(16, 1, 1), torch.tensor(2.0), torch.tensor(3), 4, 0.5], ids=repr
)
def test_what_is_added_may_be_spread_over_pixels_or_be_a_number(residual):
    layer, x, called = layer_of(16, 16), numbers(2, 16, 4, 4), []
    expected = (layer(x) + residual).relu()
    layer.register_forward_hook(lambda *a: called.append(1))
    assert torch.allclose(NarrowConvolution(layer, True)(x, residual), expected, atol=1e-5)
    assert called, "the kernel reads a number for each that it writes"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_is_added_may_have_another_precision(dtype):
    layer, x, residual = layer_of(16, 16), numbers(2, 16, 4, 4), numbers(2, 16, 4, 4, seed=3).to(dtype)
    found, expected = NarrowConvolution(layer, False)(x, residual), layer(x) + residual
    assert found.dtype == expected.dtype and torch.equal(found, expected)


def test_what_is_added_may_make_the_result_larger():
    layer = layer_of(64, 16)
    x, residual = numbers(2, 64, 1, 1), numbers(2, 16, 4, 4)
    assert torch.allclose(NarrowConvolution(layer, False)(x, residual), layer(x) + residual, atol=1e-5)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5], SHAPES[7]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_finds_the_operation_declared_as_it_is(shape, dtype):
    inputs, outputs, height, width, stride = shape
    layer = layer_of(inputs, outputs, stride).to(dtype)
    narrow = NarrowConvolution(layer, True)
    x = numbers(2, inputs, height, width).to(dtype)
    given = (x, narrow.weight, narrow.bias, torch.zeros_like(layer(x)), stride, narrow.pixels, True)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(convolution, given, test_utils=tests)
    torch.library.opcheck(convolution, (x, narrow.weight, None, None, *given[4:]), test_utils=tests)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_a_card_the_result_has_the_layers_shape_and_the_kernels_memory_order(shape, dtype):
    inputs, outputs, height, width, stride = shape
    narrow = NarrowConvolution(layer_of(inputs, outputs, stride).to(dtype), True)
    expected = narrow.layer(torch.zeros(5, inputs, height, width, dtype=dtype)).shape
    with pretended_card():
        x = like(torch.zeros(5, inputs, height, width, dtype=dtype))
        weight, bias, residual = like(narrow.weight), like(narrow.bias), like(torch.zeros(expected, dtype=dtype))
        for added in (None, residual):
            found = convolution(x, weight, bias, added, stride, narrow.pixels, True)
            assert (found.device.type, found.dtype, found.shape) == ("cuda", dtype, expected)
            assert found.is_contiguous(memory_format=torch.channels_last)


def wrongly(fault):
    """The operation on a CPU with a fault."""

    def faulty(x, weight, bias, residual, stride, pixels, relu):
        weight = unpacked(weight, x.shape[1], pixels)
        if fault == "taps transposed":
            weight = weight.transpose(2, 3)
        elif fault == "taps turned around":
            weight = weight.flip(2, 3)
        if fault == "bias forgotten":
            bias = None
        elif fault == "bias of another channel":
            bias = bias.roll(1)
        y = F.conv2d(x, weight, None if bias is None else bias[: len(weight)], stride, 1)
        if residual is not None and fault != "shortcut forgotten":
            y = (y.relu() if fault == "ReLU too early" else y) + residual
        if fault == "bias added to the shortcut again" and residual is not None and bias is not None:
            y = y + bias[: len(weight), None, None]
        y = y.relu() if relu and fault != "ReLU forgotten" else y
        return y if fault == "memory order" else y.contiguous(memory_format=torch.channels_last)

    return faulty


FAULTS = (
    "taps transposed",
    "taps turned around",
    "bias forgotten",
    "bias of another channel",
    "bias added to the shortcut again",
    "shortcut forgotten",
    "ReLU too early",
    "ReLU forgotten",
    "memory order",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, monkeypatch):
    check = test_a_layer_is_computed_with_bias_shortcut_and_relu
    for planted in ("none", fault):
        monkeypatch.setattr("acr_ray.smoothing.narrow.convolution", wrongly(planted))
        if planted == "none":
            check(SHAPES[1], True, True, True)
        else:
            with pytest.raises(AssertionError):
                check(SHAPES[1], True, True, True)
