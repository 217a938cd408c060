"""The Triton kernels on a CPU, against torch. `test_narrow_kernel` runs this in a process of its own.

Triton decides at its import whether it interprets. Its interpreter has no bfloat16 in matrix products, so the kernels
compute in float32 and float16 here.
"""

import importlib.util
import itertools
import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.nn import functional as F

from acr_ray.smoothing import narrow_kernel
from acr_ray.smoothing.narrow import convolution, packed, pixels_together

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_narrow_kernel.py"

# Rows, channels in and out, height, width, stride. A program computes 128 groups: some of these fill none, some leave
# the last one partly empty, and programs begin in the midst of an image or of a row.
SHAPES = (
    (1, 1, 16, 8, 8, 1),
    (3, 3, 16, 9, 6, 1),
    (2, 3, 32, 5, 2, 1),
    (1, 8, 16, 3, 4, 1),
    (2, 16, 16, 12, 14, 1),
    (5, 16, 32, 1, 2, 1),
    (3, 16, 32, 9, 7, 2),
    (2, 16, 16, 8, 8, 2),
    (3, 32, 32, 7, 5, 1),
    (2, 32, 64, 10, 11, 2),
    (1, 32, 16, 1, 1, 1),
    (2, 64, 64, 8, 8, 1),
    (9, 64, 16, 4, 4, 1),
    (2, 64, 32, 3, 3, 2),
)
GUARD = 16384  # numbers before and behind what a kernel may touch


@contextmanager
def watched_memory():
    """What kernels write to has a guard on both sides, which must stay as it was, and is to be written whole."""
    made = []

    def empty(shape, *, dtype, device, memory_format=torch.contiguous_format):
        numbers = torch.Size(shape).numel()
        whole = torch.full((numbers + 2 * GUARD,), 7.0, dtype=dtype, device=device)
        made.append((whole, numbers))
        within = whole[GUARD : GUARD + numbers].fill_(float("nan"))
        if memory_format != torch.channels_last:
            return within.view(shape)
        images, channels, *size = shape
        return within.view(images, *size, channels).permute(0, 3, 1, 2)

    with mock.patch.object(torch, "empty", empty):
        yield
    for whole, numbers in made:
        assert (whole[:GUARD] == 7).all() and (whole[GUARD + numbers :] == 7).all(), "written outside of the result"


def convolve(kernel, *given):
    with watched_memory():
        return kernel.convolve(*given)


def pack(kernel, *given):
    with watched_memory():
        return kernel.pack(*given)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def guarded(x):
    """The same numbers, channels-last, in the midst of others that are none: whatever reads them is seen."""
    numbers = x.numel()
    whole = torch.full((numbers + 2 * GUARD,), float("nan"), dtype=x.dtype)
    images, channels, *size = x.shape
    within = whole[GUARD : GUARD + numbers].view(images, *size, channels).permute(0, 3, 1, 2)
    return within.copy_(x)


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


def check_convolution(kernel, shape, dtype=torch.float32):
    near = {"atol": 1e-5} if dtype == torch.float32 else {"atol": 1e-3, "rtol": 2**-10}
    switches = list(itertools.product((False, True), repeat=3))
    for biased, adds, relu in switches if shape == SHAPES[4] else [(False, False, False), (True, True, True)]:
        given, weight = case(shape, dtype, biased, adds)
        found = convolve(kernel, *given, relu)
        assert torch.allclose(found, convolution(*given, relu), **near)
        assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
        x, _, bias, residual, stride, _ = given
        bias = None if bias is None else bias[: len(weight)]
        plain = F.conv2d(x.float(), weight.to(dtype).float(), bias, stride, 1) + (0 if residual is None else residual)
        assert torch.allclose(found.float(), plain.relu() if relu else plain, **near)


def check_overflow(kernel, shape, bad=float("nan")):
    given, _ = case(shape, torch.float32)
    given[0][1, 0, 2, 1] = bad
    found, plain = convolve(kernel, *given, False), convolution(*given, False)
    # Each of a pair reads what the other sees, times 0: what is no number there is none here.
    pairs = plain.isfinite().unflatten(3, (-1, given[-1])).all(4, keepdim=True)
    assert not pairs.all() and torch.equal(found.isfinite(), pairs.expand(*pairs.shape[:4], given[-1]).flatten(3))
    assert torch.equal(convolve(kernel, *given, True).isnan(), found.isnan())


def check_company(kernel, shape):
    (x, weight, bias, residual, *rest), _ = case(shape, torch.float16)
    together = convolve(kernel, x, weight, bias, residual, *rest, True)
    turned = convolve(kernel, x.flip(0), weight, bias, residual.flip(0), *rest, True)
    assert torch.equal(turned.flip(0), together)
    for row in range(len(x)):
        one = slice(row, row + 1)
        assert torch.equal(convolve(kernel, x[one], weight, bias, residual[one], *rest, True), together[one])


def check_packing(kernel, inputs, outputs, flipped, order=torch.contiguous_format, dtype=torch.float32):
    # The interpreter cuts numbers to bfloat16 where a GPU rounds them: so they have that precision.
    weight = numbers(outputs, inputs, 3, 3).bfloat16().float().contiguous(memory_format=order)
    turned = weight.flip(2, 3).transpose(0, 1) if flipped else weight
    found = pack(kernel, weight, dtype, pixels_together(turned.shape[1], 1), flipped)
    assert found.dtype == dtype and torch.equal(found, packed(turned.to(dtype), 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_computes_what_torch_does(shape, dtype):
    check_convolution(narrow_kernel, shape, dtype)


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4], SHAPES[6], SHAPES[8], SHAPES[12]], ids=str)
def test_a_row_is_the_same_alone_and_in_company_bit_for_bit(shape):
    check_company(narrow_kernel, shape)


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[7], SHAPES[11]], ids=str)
def test_the_memory_order_of_what_comes_in_makes_no_difference(shape):
    (x, weight, bias, residual, *rest), _ = case(shape, torch.float32)
    expected = convolve(narrow_kernel, x, weight, bias, residual, *rest, True)
    for a, b in (
        (x.contiguous(memory_format=torch.contiguous_format), residual.contiguous()),
        # Rows of a larger batch, every second one.
        [torch.stack([value, value + 1], 1).flatten(0, 1)[::2] for value in (x, residual)],
    ):
        assert torch.equal(a, x) and not a.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(convolve(narrow_kernel, a, weight, bias, b, *rest, True), expected)


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[4], SHAPES[7], SHAPES[11]], ids=str)
def test_an_overflow_is_seen_and_stays_near_where_it_was(shape, bad):
    check_overflow(narrow_kernel, shape, bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 16), (8, 64), (16, 16), (16, 32), (32, 16), (64, 64)])
def test_weights_are_packed_as_by_torch(inputs, outputs, flipped, order, dtype):
    check_packing(narrow_kernel, inputs, outputs, flipped, order, dtype)


def test_weights_for_single_pixels_of_few_channels_are_packed_too():
    weight = numbers(16, 16, 3, 3)
    assert torch.equal(pack(narrow_kernel, weight, torch.float32, 1, False), packed(weight, 2))


def every_convolution(kernel):
    for shape in SHAPES:
        check_convolution(kernel, shape)


def every_packing(kernel):
    for flipped in (False, True):
        check_packing(kernel, 16, 32, flipped)
        check_packing(kernel, 32, 16, flipped)


# Lines of the kernels, what becomes of them, and what must see it.
FAULTS = {
    "no fault": ("", "", lambda kernel: (every_convolution(kernel), every_packing(kernel))),
    "residual forgotten": ("    if adds:", "    if False:", every_convolution),
    "bias once too little": ("    if biased:", "    if False:", every_convolution),
    "taps transposed": ("tap // 3 - 1, tap % 3 - 1", "tap % 3 - 1, tap // 3 - 1", every_convolution),
    "one tap too few": ("range(0, taps)", "range(0, taps - 1)", every_convolution),
    "a row above that is not there": ("(h + down >= 0) & ", "", every_convolution),
    "a row below that is not there": (" & (h * stride + down < height)", "", every_convolution),
    "a column to the left that is not there": ("(at >= 0) & ", "", every_convolution),
    "a column to the right that is not there": (
        "[:, None] & (at >= 0) & (at < width)",
        "[:, None] & (at >= 0)",
        every_convolution,
    ),
    "written behind the end": ("total.to(y.dtype.element_ty), mask=exists[:, None]", "total", every_convolution),
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
    "not turned around": ("row, column = 2 - row, 2 - column", "row, column = row, column", every_packing),
    "inputs for outputs": ("(steps[1], steps[0], *steps[2:])", "steps", every_packing),
    "a weight beyond the last column": (" & (column >= 0) & (column < 3)", "", every_packing),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, tmp_path):
    line, instead, check = FAULTS[fault]
    source = Path(narrow_kernel.__file__).read_text()
    assert line in source
    planted = tmp_path / "planted.py"
    planted.write_text(source.replace(line, instead, 1) if line else source)
    specification = importlib.util.spec_from_file_location("planted", planted)
    kernel = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(kernel)
    with nullcontext() if fault == "no fault" else pytest.raises(AssertionError):
        check(kernel)
