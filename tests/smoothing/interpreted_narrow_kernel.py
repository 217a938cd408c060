"""The Triton kernel of narrow convolutions on a CPU, against torch. `test_kernels` runs this.

Triton's interpreter has no bfloat16 in matrix products, so the kernel computes in float32 and float16 here.
"""

import itertools
import os

import pytest
import torch
from torch.nn import functional as F

from acr_ray.smoothing import narrow_kernel
from acr_ray.smoothing.narrow import convolution, packed, pixels_together
from tests.fakes.interpreter import check_planted, guarded, numbers, watched

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_kernels.py"

# Rows, channels in and out, height, width, stride. A program computes 128 groups: some of these fill none, some leave
# the last one partly empty, and programs begin in the midst of an image or of a row.
SHAPES = (
    (1, 1, 16, 8, 8, 1),
    (3, 3, 16, 9, 6, 1),
    (2, 3, 32, 5, 2, 1),
    (1, 8, 16, 3, 4, 1),
    (2, 16, 16, 10, 14, 1),
    (5, 16, 32, 1, 2, 1),
    (3, 16, 32, 9, 7, 2),
    (2, 16, 16, 8, 8, 2),
    (3, 32, 32, 7, 5, 1),
    (2, 32, 64, 10, 11, 2),
    (1, 32, 16, 1, 1, 1),
    (2, 64, 64, 8, 8, 1),
    (5, 64, 16, 6, 6, 1),
    (2, 64, 32, 3, 3, 2),
)


def case(shape, dtype, biased=True, adds=True):
    """What both get: input, packed weights, bias, shortcut, stride and pixels; and the plain weights."""
    images, inputs, outputs, height, width, stride = shape
    pixels = pixels_together(inputs, stride)
    weight = numbers(outputs, inputs, 3, 3, seed=1) / (9 * inputs) ** 0.5
    bias = numbers(outputs, seed=2).repeat(pixels) if biased else None
    x = guarded(numbers(images, inputs, height, width).to(dtype))
    size = ((side - 1) // stride + 1 for side in (height, width))
    residual = guarded(numbers(images, outputs, *size, seed=3).to(dtype)) if adds else None
    return (x, packed(weight, stride).to(dtype), bias, residual, stride, pixels), weight


def check_numbers(kernel, shape, dtype=torch.float32):
    near = {"atol": 1e-5} if dtype == torch.float32 else {"atol": 1e-3, "rtol": 2**-10}
    switches = list(itertools.product((False, True), repeat=3))
    for biased, adds, relu in switches if shape == SHAPES[4] else [(False, False, False), (True, True, True)]:
        given, weight = case(shape, dtype, biased, adds)
        found = watched(kernel.convolve, *given, relu)
        assert torch.allclose(found, convolution(*given, relu), **near)
        assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
        x, _, bias, residual, stride, _ = given
        bias = None if bias is None else bias[: len(weight)]
        plain = F.conv2d(x.float(), weight.to(dtype).float(), bias, stride, 1) + (0 if residual is None else residual)
        assert torch.allclose(found.float(), plain.relu() if relu else plain, **near)


def check_overflow(kernel, shape, bad=float("nan")):
    given, _ = case(shape, torch.float32)
    given[0][1, 0, 2, 1] = bad
    found, plain = watched(kernel.convolve, *given, False), convolution(*given, False)
    # Each of a pair reads what the other sees, times 0: what is no number there is none here.
    pairs = plain.isfinite().unflatten(3, (-1, given[-1])).all(4, keepdim=True)
    assert not pairs.all() and torch.equal(found.isfinite(), pairs.expand(*pairs.shape[:4], given[-1]).flatten(3))
    assert torch.equal(watched(kernel.convolve, *given, True).isnan(), found.isnan())


def check_company(kernel, shape):
    (x, weight, bias, residual, *rest), _ = case(shape, torch.float16)
    together = watched(kernel.convolve, x, weight, bias, residual, *rest, True)
    turned = watched(kernel.convolve, x.flip(0), weight, bias, residual.flip(0), *rest, True)
    assert torch.equal(turned.flip(0), together)
    for row in range(len(x)):
        one = slice(row, row + 1)
        assert torch.equal(watched(kernel.convolve, x[one], weight, bias, residual[one], *rest, True), together[one])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_computes_what_torch_does(shape):
    check_numbers(narrow_kernel, shape)


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4], SHAPES[7], SHAPES[11]], ids=str)
def test_the_kernel_computes_what_torch_does_in_float16(shape):
    check_numbers(narrow_kernel, shape, torch.float16)


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[6], SHAPES[8]], ids=str)
def test_a_row_is_the_same_alone_and_in_company_bit_for_bit(shape):
    check_company(narrow_kernel, shape)


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[7], SHAPES[11]], ids=str)
def test_the_memory_order_of_what_comes_in_makes_no_difference(shape):
    (x, weight, bias, residual, *rest), _ = case(shape, torch.float32)
    expected = watched(narrow_kernel.convolve, x, weight, bias, residual, *rest, True)
    for a, b in (
        (x.contiguous(memory_format=torch.contiguous_format), residual.contiguous()),
        # Rows of a larger batch, every second one.
        [torch.stack([value, value + 1], 1).flatten(0, 1)[::2] for value in (x, residual)],
    ):
        assert torch.equal(a, x) and not a.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(watched(narrow_kernel.convolve, a, weight, bias, b, *rest, True), expected)


def test_no_rows_give_no_rows():
    (x, weight, bias, residual, *rest), _ = case(SHAPES[4], torch.float32)
    found = narrow_kernel.convolve(x[:0], weight, bias, residual[:0], *rest, True)
    assert found.shape == residual[:0].shape


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[4], SHAPES[7], SHAPES[11]], ids=str)
def test_an_overflow_is_seen_and_stays_near_where_it_was(shape, bad):
    check_overflow(narrow_kernel, shape, bad)


def every_shape(kernel):
    for shape in SHAPES:
        check_numbers(kernel, shape)


# Lines of the kernel, what becomes of them, and what must see it.
FAULTS = {
    "no fault": ("", "", every_shape),
    "shortcut forgotten": ("    if adds:", "    if False:", every_shape),
    "bias once too little": ("    if biased:", "    if False:", every_shape),
    "taps transposed": ("tap // 3 - 1, tap % 3 - 1", "tap % 3 - 1, tap // 3 - 1", every_shape),
    "one tap too few": ("range(0, taps)", "range(0, taps - 1)", every_shape),
    "a row above that is not there": ("(h + down >= 0) & ", "", every_shape),
    "a row below that is not there": (" & (h * stride + down < height)", "", every_shape),
    "a column to the left that is not there": ("(at >= 0) & ", "", every_shape),
    "a column to the right that is not there": (
        "[:, None] & (at >= 0) & (at < width)",
        "[:, None] & (at >= 0)",
        every_shape,
    ),
    "written behind the end": ("total.to(y.dtype.element_ty), mask=exists[:, None]", "total", every_shape),
    "NaN made 0": (
        "tl.where(total < 0, 0.0, total)",
        "tl.maximum(total, 0.0)",
        lambda kernel: check_overflow(kernel, SHAPES[4]),
    ),
    "a row's place in its batch": (
        "    if relu:\n",
        "    total += tl.where(group == 0, 0.01, 0.0)[:, None]\n    if relu:\n",
        lambda kernel: check_company(kernel, SHAPES[8]),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, tmp_path):
    check_planted(narrow_kernel, *FAULTS[fault], tmp_path)
