"""What training needs beside `acr_ray.smoothing.narrow_kernel`, in Triton: weights packed, and their gradient.

Imported where it is launched: Triton comes with CUDA.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from acr_ray.smoothing.narrow import packed_shape

ROWS = 64  # pixels that a program reads at a time
PARTS = 128  # of all pixels, each summed by itself; then the parts are summed, always in the same order


@triton.jit
def _pack(
    weight,
    packed,
    of_output,  # steps in memory from one output, input, row, column to the next
    of_input,
    of_row,
    of_column,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    pixels: tl.constexpr,
    width: tl.constexpr,  # numbers of a row of what is packed
    size: tl.constexpr,
    flipped: tl.constexpr,
    block: tl.constexpr,
):
    tap, at = tl.program_id(0), tl.program_id(1) * block + tl.arange(0, block)
    k, n = at // width, at % width
    exists = at < size
    if pixels == 1:
        row, column, c, o = tap // 3, tap % 3, k, n
        wanted = exists
    else:
        row, column, c, o = tap, k // inputs - n // outputs, k % inputs, n % outputs
        wanted = exists & (k < 4 * inputs) & (column >= 0) & (column < 3)
    if flipped:
        row, column = 2 - row, 2 - column
    place = o * of_output + c * of_input + row * of_row + column * of_column
    value = tl.load(weight + place, mask=wanted, other=0.0)
    tl.store(packed + tap * size + at, value.to(packed.dtype.element_ty), mask=exists)


def pack(weight: Tensor, dtype: torch.dtype, pixels: int, flipped: bool) -> Tensor:
    """Weights as `acr_ray.smoothing.narrow.packed` gives them, in one launch, whatever their precision and order.

    Args:
        weight: ``(C_out, C_in, 3, 3)``.
        dtype: of the result.
        flipped: those of the convolution that passes gradients back: inputs and outputs exchanged, turned around.
    """
    steps = weight.stride()
    outputs, inputs = weight.shape[:2]
    if flipped:
        outputs, inputs, steps = inputs, outputs, (steps[1], steps[0], *steps[2:])
    taps, reach, width = packed_shape(outputs, inputs, pixels)
    result = torch.empty((taps, reach, width), dtype=dtype, device=weight.device)
    size, block = reach * width, 1024
    _pack[(taps, triton.cdiv(size, block))](
        weight, result, *steps, inputs, outputs, pixels, width, size, flipped, block, num_warps=4
    )
    return result


@triton.jit
def _weight_gradient(
    x,
    gradient,
    parts,
    pixels,
    height: tl.constexpr,
    width: tl.constexpr,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    chunk: tl.constexpr,
    rows: tl.constexpr,
):
    part, down = tl.program_id(0), tl.program_id(1) - 1
    k, n = tl.arange(0, 4 * inputs), tl.arange(0, outputs)  # four neighbours of a row; the last is not used
    right = k // inputs - 1
    total = tl.zeros((outputs, 4 * inputs), tl.float32)
    for at in range(0, chunk, rows):
        pixel = part * chunk + at + tl.arange(0, rows)
        exists = pixel < pixels
        h, w = (pixel // width) % height, pixel % width
        column = w[:, None] + right[None, :]
        inside = (exists & (h + down >= 0) & (h + down < height))[:, None] & (column >= 0) & (column < width)
        inside = inside & (right < 2)[None, :]
        origin = (pixel.to(tl.int64) + (down * width - 1)) * inputs
        a = tl.load(x + origin[:, None] + k[None, :], mask=inside, other=0.0)
        g = tl.load(gradient + pixel.to(tl.int64)[:, None] * outputs + n[None, :], mask=exists[:, None], other=0.0)
        total = tl.dot(tl.trans(g), a, total)
    place = (part * outputs + n)[:, None] * (9 * inputs) + (down + 1) * (3 * inputs) + k[None, :]
    tl.store(parts + place, total, mask=(right < 2)[None, :] & (n >= 0)[:, None])


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weights of a 3x3 convolution with stride 1 and padding 1.

    Args:
        x: ``(B, C_in, H, W)``, what went in; bfloat16 or float16.
        gradient: ``(B, C_out, H, W)`` of what came out, in that precision.

    Returns:
        float32 ``(C_out, C_in, 3, 3)``, in channels-last memory order.
    """
    images, inputs, height, width = x.shape
    outputs, pixels = gradient.shape[1], images * height * width
    chunk = max(1, -(-pixels // (PARTS * ROWS))) * ROWS
    count = -(-pixels // chunk)
    parts = torch.empty((count, outputs, 3, 3, inputs), dtype=torch.float32, device=x.device)
    _weight_gradient[(count, 3)](
        x.contiguous(memory_format=torch.channels_last),
        gradient.contiguous(memory_format=torch.channels_last),
        parts,
        pixels,
        height,
        width,
        inputs,
        outputs,
        chunk,
        ROWS,
        num_warps=4,
        num_stages=3,
    )
    return parts.sum(0).permute(0, 3, 1, 2)
