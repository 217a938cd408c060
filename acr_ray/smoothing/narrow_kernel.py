"""The GPU kernel of `acr_ray.smoothing.narrow`, in Triton. Imported where it is launched: Triton comes with CUDA.

cuDNN's convolutions are made for hundreds of channels. With 16 at 32x32 they reach a tenth of what an H200 moves; this
kernel, which also adds bias and shortcut and applies the ReLU before anything is written, takes a fifth of the time.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 128  # groups of pixels that a program computes
WARPS = 4
# Stages of the loop over taps by channels, measured on an H200: pairs of pixels (few channels), single pixels.
STAGES_OF_PAIRS, STAGES_OF_SINGLE = 2, 3
ROOM = 80 * 1024  # bytes of a multiprocessor's memory that three stages of 64 channels take


@triton.jit
def _convolve(
    x,
    weight,
    bias,
    residual,
    y,
    groups,
    height: tl.constexpr,  # of the input
    width: tl.constexpr,
    height_out: tl.constexpr,
    width_out: tl.constexpr,
    channels: tl.constexpr,  # of the input
    stride: tl.constexpr,
    pixels: tl.constexpr,  # neighbours of a row that are computed together: 1 or 2; 2 only with stride 1
    taps: tl.constexpr,
    reach: tl.constexpr,  # numbers of a tap: contiguous in memory, padded to a power of 2
    outputs: tl.constexpr,  # numbers of a group
    rows: tl.constexpr,
    biased: tl.constexpr,
    adds: tl.constexpr,
    relu: tl.constexpr,
):
    group = tl.program_id(0) * rows + tl.arange(0, rows)
    exists = group < groups
    in_row = width_out // pixels
    column, h = group % in_row, (group // in_row) % height_out
    k, n = tl.arange(0, reach), tl.arange(0, outputs)
    if stride == 1:
        origin = group.to(tl.int64) * (pixels * channels)
    else:
        image = group // (in_row * height_out)
        origin = ((image.to(tl.int64) * height + h * stride) * width + column * stride) * channels
    total = tl.zeros((rows, outputs), tl.float32)
    for tap in range(0, taps):
        if pixels == 1:
            down, right = tap // 3 - 1, tap % 3 - 1
            at = column * stride + right
            inside = exists & (h * stride + down >= 0) & (h * stride + down < height) & (at >= 0) & (at < width)
            a = tl.load(
                x + (origin + (down * width + right) * channels)[:, None] + k[None, :], mask=inside[:, None], other=0.0
            )
        else:
            down = tap - 1
            at = column[:, None] * pixels - 1 + (k // channels)[None, :]
            inside = (exists & (h + down >= 0) & (h + down < height))[:, None] & (at >= 0) & (at < width)
            if reach != (pixels + 2) * channels:
                inside = inside & (k < (pixels + 2) * channels)[None, :]
            a = tl.load(x + (origin + (down * width - 1) * channels)[:, None] + k[None, :], mask=inside, other=0.0)
        b = tl.load(weight + tap * (reach * outputs) + k[:, None] * outputs + n[None, :])
        total = tl.dot(a, b, total)
    if biased:
        total += tl.load(bias + n)[None, :]
    place = group.to(tl.int64)[:, None] * outputs + n[None, :]
    if adds:
        total += tl.load(residual + place, mask=exists[:, None], other=0.0).to(tl.float32)
    if relu:
        # Not a maximum: that of NaN and 0 would be 0, and an overflow go unseen.
        total = tl.where(total < 0, 0.0, total)
    tl.store(y + place, total.to(y.dtype.element_ty), mask=exists[:, None])


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, stride: int, pixels: int, relu: bool
) -> Tensor:
    """Launch the kernel; arguments and result are those of `acr_ray.smoothing.narrow.convolution`."""
    images, channels, height, width = x.shape
    taps, reach, outputs = weight.shape
    height_out, width_out = (height - 1) // stride + 1, (width - 1) // stride + 1
    x = x.contiguous(memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    y = torch.empty(
        (images, outputs // pixels, height_out, width_out),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    groups = images * height_out * width_out // pixels
    _convolve[(triton.cdiv(groups, ROWS),)](
        x,
        weight,
        x if bias is None else bias,
        x if residual is None else residual,
        y,
        groups,
        height,
        width,
        height_out,
        width_out,
        channels,
        stride,
        pixels,
        taps,
        reach,
        outputs,
        ROWS,
        bias is not None,
        residual is not None,
        relu,
        num_warps=WARPS,
        num_stages=_stages(x.device, pixels),
    )
    return y


@cache
def _stages(device: torch.device, pixels: int) -> int:
    """Stages of the loop over taps, which change no sum; one where a card lacks the memory for more (Turing)."""
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        if getattr(about, "shared_memory_per_block_optin", ROOM) < ROOM:
            return 1
    return STAGES_OF_SINGLE if pixels == 1 else STAGES_OF_PAIRS
