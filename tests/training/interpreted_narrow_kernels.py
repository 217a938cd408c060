"""The Triton kernels that pack weights and sum their gradients on a CPU, against torch. `test_kernels` runs this.

Triton's interpreter has no bfloat16 in matrix products, and cuts numbers to bfloat16 where a GPU rounds them.
"""

import os
from unittest import mock

import pytest
import torch

from acr_ray.smoothing.narrow import packed, pixels_together
from acr_ray.training import narrow_kernel
from acr_ray.training.narrow import WIDEST_OWN
from tests.fakes.interpreter import check_planted, guarded, numbers, watched

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_kernels.py"

# Rows, height, width, and parts that the pixels are summed in. Each takes 64 at a time: some of these fill none, some
# leave the last one partly empty, and parts begin in the midst of an image or of a row; some take several turns.
SIZES = ((1, 1, 2, 128), (1, 8, 8, 128), (3, 5, 6, 128), (2, 9, 14, 128), (2, 9, 14, 2))


def check_packing(kernel, inputs, outputs, flipped, order=torch.contiguous_format, dtype=torch.float32):
    weight = numbers(outputs, inputs, 3, 3).bfloat16().float().contiguous(memory_format=order)
    turned = weight.flip(2, 3).transpose(0, 1) if flipped else weight
    found = watched(kernel.pack, weight, dtype, pixels_together(turned.shape[1], 1), flipped)
    assert found.dtype == dtype and torch.equal(found, packed(turned.to(dtype), 1))


def check_gradient(kernel, size, dtype=torch.float32, inputs=16, outputs=16):
    rows, *size, parts = size
    x, gradient = numbers(rows, inputs, *size).to(dtype), numbers(rows, outputs, *size, seed=1).to(dtype)
    with mock.patch.object(kernel, "PARTS", parts):
        found = watched(kernel.weight_gradient, guarded(x), guarded(gradient))
    exact = torch.nn.grad.conv2d_weight(x.double(), (outputs, inputs, 3, 3), gradient.double(), padding=1)
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found.double(), exact, rtol=0, atol=3e-6 * (rows * size[0] * size[1]) ** 0.5 + 1e-6)


@pytest.mark.parametrize(
    ("order", "dtype"),
    [
        (torch.contiguous_format, torch.bfloat16),
        (torch.channels_last, torch.float16),
        (torch.channels_last, torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (16, 32), (32, 16), (64, 64)])
def test_weights_are_packed_as_by_torch(inputs, outputs, flipped, order, dtype):
    check_packing(narrow_kernel, inputs, outputs, flipped, order, dtype)


@pytest.mark.parametrize("inputs", [1, 3, 8])
def test_weights_of_few_channels_are_packed_with_zeros_behind_them(inputs):
    check_packing(narrow_kernel, inputs, 16, False)


def test_weights_for_single_pixels_of_few_channels_are_packed_too():
    weight = numbers(16, 16, 3, 3)
    assert torch.equal(watched(narrow_kernel.pack, weight, torch.float32, 1, False), packed(weight, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_weights_gradient_is_torchs(size, dtype):
    check_gradient(narrow_kernel, size, dtype)


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 32), (32, 16), (32, 32)])
def test_the_weights_gradient_of_more_channels_is_torchs(inputs, outputs):
    assert max(inputs, outputs) <= WIDEST_OWN
    check_gradient(narrow_kernel, SIZES[2], inputs=inputs, outputs=outputs)


def test_the_memory_order_of_what_comes_in_makes_no_difference():
    x, gradient = numbers(3, 16, 5, 6), numbers(3, 16, 5, 6, seed=1)
    expected = narrow_kernel.weight_gradient(guarded(x), guarded(gradient))
    assert torch.equal(narrow_kernel.weight_gradient(x, gradient), expected)
    # As a mean over pixels gives it.
    spread = gradient.mean((2, 3), keepdim=True).expand_as(gradient)
    expected = narrow_kernel.weight_gradient(x, spread.contiguous())
    assert torch.equal(narrow_kernel.weight_gradient(x, spread), expected)


def test_no_rows_give_no_gradient():
    none = numbers(0, 16, 4, 4)
    assert torch.equal(narrow_kernel.weight_gradient(none, none), torch.zeros(16, 16, 3, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")
def test_an_overflow_reaches_the_gradient(bad):
    x, gradient = numbers(2, 16, 4, 4), numbers(2, 16, 4, 4, seed=1)
    gradient[1, 3, 2, 1] = bad
    found = narrow_kernel.weight_gradient(x, gradient)
    assert not found[3].isfinite().any() and found[:3].isfinite().all() and found[4:].isfinite().all()


def every_gradient(kernel):
    for size in SIZES:
        check_gradient(kernel, size, outputs=32)


def every_packing(kernel):
    for flipped in (False, True):
        check_packing(kernel, 16, 32, flipped)
        check_packing(kernel, 32, 16, flipped)


# Lines of the kernels, what becomes of them, and what must see it.
FAULTS = {
    "no fault": ("", "", lambda kernel: (every_gradient(kernel), every_packing(kernel))),
    "not turned around": ("row, column = 2 - row, 2 - column", "row, column = row, column", every_packing),
    "inputs for outputs": ("(steps[1], steps[0], *steps[2:])", "steps", every_packing),
    "a weight beyond the last column": (" & (column >= 0) & (column < 3)", "", every_packing),
    "a row above that is not there": (" & (h + down >= 0)", "", every_gradient),
    "a row below that is not there": (" & (h + down < height)", "", every_gradient),
    "a column that is not there": ("[:, None] & (column >= 0) & (column < width)", "[:, None]", every_gradient),
    "pixels behind the end": (
        "mask=exists[:, None], other=0.0)\n        total",
        "mask=None)\n        total",
        every_gradient,
    ),
    "a turn too few": ("range(0, chunk, rows)", "range(0, chunk - rows + 1, 2 * rows)", every_gradient),
    "a part left out": ("parts.sum(0)", "parts[0]", every_gradient),
    "rows and columns exchanged": (".permute(0, 3, 1, 2)", ".permute(0, 3, 2, 1)", every_gradient),
    "written behind the end": ("mask=(right < 2)[None, :] & (n >= 0)[:, None]", "mask=None", every_gradient),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, tmp_path):
    check_planted(narrow_kernel, *FAULTS[fault], tmp_path)
