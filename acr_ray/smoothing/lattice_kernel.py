"""Lattice noise on a GPU as one kernel, in Triton: equal to `lattice_reference` bit for bit, with whole numbers alone.

From the images' grid points and a counter to the network's inputs, in its precision and memory order; nothing else is
written. Imported where it is launched: Triton comes with CUDA.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from acr_ray.smoothing.lattice import UNDECIDED, table_of
from acr_ray.smoothing.lattice_law import LatticeLaw

GROUPS = 128  # of eight coordinates: what a program draws
NOT_DECIDED = tl.constexpr(UNDECIDED)


class DeviceTable(NamedTuple):
    """A law's thresholds on a device; see `acr_ray.smoothing.lattice.Table`.

    Attributes:
        guide: int16 (2**16,).
        start, stop: int32 (2**16,).
        low: int64 (thresholds,): the last 64 bits of each, less 2**63.
        reach: of the law.
    """

    guide: Tensor
    start: Tensor
    stop: Tensor
    low: Tensor
    reach: int

    @classmethod
    def of(cls, law: LatticeLaw, device: str) -> DeviceTable:
        """Return the law's table on a device."""
        table = table_of(law)
        arrays = (table.guide, table.start, table.stop, table.signed_low)
        guide, start, stop, low = (torch.from_numpy(array).to(device) for array in arrays)
        return cls(guide, start, stop, low, law.reach)


@triton.jit
def _draw(
    guide,
    start,
    stop,
    low,
    images,
    keys,
    first,
    out,
    reach,
    step,
    draws,
    coordinates,
    of_first,  # 0: all images begin with the same draw; 1: each has its own
    groups: tl.constexpr,
    copies: tl.constexpr,
):
    row, g = tl.program_id(0), tl.program_id(1) * groups + tl.arange(0, groups)
    image = row // draws
    draw = tl.load(first + image * of_first) + row % draws
    key = (tl.load(keys + 2 * image + 1) << 32) | tl.load(keys + 2 * image)
    zeros = tl.zeros((groups,), tl.uint32)
    counter = draw * ((coordinates + 7) // 8) + g
    w0, w1, w2, w3 = tl.philox(key, counter.to(tl.uint32), (counter >> 32).to(tl.uint32), zeros, zeros)
    # (group, half, word's second bit, word's first bit), brought into the order of the coordinates.
    halves = tl.join(tl.join(_halves(w0), _halves(w2)), tl.join(_halves(w1), _halves(w3)))
    bits = tl.reshape(tl.permute(halves, (0, 2, 3, 1)), (8 * groups,))
    number = tl.load(guide + bits).to(tl.int32)
    at = tl.program_id(1) * (8 * groups) + tl.arange(0, 8 * groups)
    open_ = (number == NOT_DECIDED) & (at < coordinates)
    pair = tl.program_id(1) * (4 * groups) + tl.arange(0, 4 * groups)
    more = draw * ((coordinates + 1) // 2) + pair
    zeros = tl.zeros((4 * groups,), tl.uint32)
    v0, v1, v2, v3 = tl.philox(
        key, more.to(tl.uint32), (more >> 32).to(tl.uint32) + tl.full((), 2147483648, tl.uint32), zeros, zeros
    )
    further = tl.reshape(tl.join(_signed(v0, v1), _signed(v2, v3)), (8 * groups,))
    begin = tl.load(start + bits, mask=open_, other=0)
    end = tl.load(stop + bits, mask=open_, other=0)
    going = tl.max((begin < end).to(tl.int32), 0)
    while going > 0:  # the number of thresholds at or below, by halving: nearly always of one
        middle = (begin + end) >> 1
        searched = begin < end
        above = searched & (tl.load(low + middle, mask=searched, other=0) <= further)
        end = tl.where(searched & (above == 0), middle, end)
        begin = tl.where(above, middle + 1, begin)
        going = tl.max((begin < end).to(tl.int32), 0)
    number = tl.where(open_, begin - reach, number)
    place = row.to(tl.int64) * coordinates + at
    exists = at < coordinates
    if copies:
        steps = number + tl.load(images + image.to(tl.int64) * coordinates + at, mask=exists, other=0)
        value = (steps.to(tl.float32) * step).to(out.dtype.element_ty)
    else:
        value = number.to(out.dtype.element_ty)
    tl.store(out + place, value, mask=exists)


@triton.jit
def _halves(word):
    return tl.join((word & 65535).to(tl.int32), (word >> 16).to(tl.int32))


@triton.jit
def _signed(first, second):
    """64 bits less 2**63, so that signed integers are in the order of the bits."""
    return ((second.to(tl.int64) - 2147483648) << 32) + first.to(tl.int64)


def copies(
    table: DeviceTable, images: Tensor, keys: Tensor, first: Tensor, draws: int, step: float, dtype: torch.dtype
) -> Tensor:
    """Noisy copies of images on the grid.

    Args:
        images: steps, int16 ``(B, H, W, C)``, contiguous.
        keys: int64 ``(B, 2)``: the low and the high word of each image's key.
        first: int64: index of the first draw within the phase, ``()``, or one for each image, ``(B, 1)``.
        draws: of each image.
        step: a float32.
        dtype: of the copies.

    Returns:
        ``(B, draws, H, W, C)``, whole numbers times ``step``, rounded to ``dtype``.
    """
    out = torch.empty((len(keys), draws, *images.shape[1:]), dtype=dtype, device=keys.device)
    _launch(table, images, keys, first, out, images[0].numel(), step)
    return out


def steps(table: DeviceTable, keys: Tensor, first: Tensor, draws: int, coordinates: int) -> Tensor:
    """Whole numbers K, int16 ``(B, draws, coordinates)``; see `copies`."""
    out = torch.empty((len(keys), draws, coordinates), dtype=torch.int16, device=keys.device)
    _launch(table, None, keys, first, out, coordinates, 0.0)
    return out


def _launch(
    table: DeviceTable, images: Tensor | None, keys: Tensor, first: Tensor, out: Tensor, coordinates: int, step: float
) -> None:
    every = -(-coordinates // 8)
    groups = min(GROUPS, triton.next_power_of_2(max(16, every)))
    _draw[(out.shape[0] * out.shape[1], triton.cdiv(every, groups))](
        *table[:4],
        out if images is None else images,
        keys.contiguous(),
        first.contiguous(),
        out,
        table.reach,
        step,
        out.shape[1],
        coordinates,
        int(first.numel() > 1),
        groups,
        images is not None,
        num_warps=4,
    )
