"""Lattice noise with torch: integer operations alone, equal to `lattice_reference` on every device.

For GPUs of machines without a compiler; the others have `lattice_kernel`, with functions of the same names. No
operation overflows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from acr_ray.smoothing.lattice import table_of
from acr_ray.smoothing.lattice_law import LatticeLaw
from acr_ray.smoothing.lattice_reference import FURTHER, MULTIPLIERS, ROUNDS, WEYL

Words = tuple[Tensor, Tensor, Tensor, Tensor]
_WORD, _HALF = 2**32 - 1, 2**16 - 1


class DeviceTable(NamedTuple):
    """A law's thresholds on a device; see `acr_ray.smoothing.lattice.Table`.

    Attributes:
        start, stop: int64 (2**16,).
        low: int64: the last 64 bits of each threshold, less 2**63.
        reach: of the law.
        steps: halvings that find a number among the thresholds of one bucket.
    """

    start: Tensor
    stop: Tensor
    low: Tensor
    reach: int
    steps: int

    @classmethod
    def of(cls, law: LatticeLaw, device: str) -> DeviceTable:
        """Return the law's table on a device."""
        table = table_of(law)
        arrays = (table.start, table.stop, table.signed_low)
        start, stop, low = (torch.from_numpy(array).to(device, torch.int64) for array in arrays)
        return cls(start, stop, low, law.reach, int((table.stop - table.start).max()).bit_length())


def copies(
    table: DeviceTable, images: Tensor, keys: Tensor, first: Tensor, draws: int, step: float, dtype: torch.dtype
) -> Tensor:
    """Noisy copies of images on the grid; see `acr_ray.smoothing.lattice_kernel.copies`."""
    noise = steps(table, keys, first, draws, images[0].numel())
    return ((noise + images.flatten(1)[:, None]).float() * step).to(dtype).unflatten(2, images.shape[1:])


def steps(table: DeviceTable, keys: Tensor, first: Tensor, draws: int, coordinates: int) -> Tensor:
    """Whole numbers K, int16 ``(B, draws, coordinates)``; see `acr_ray.smoothing.lattice.LatticeDraws`.

    Args:
        keys: int64 ``(B, 2)``: the low and the high word of each image's key.
        first: int64 ``()``: index of the first draw within the phase; or one for each key, ``(B, 1)``.
    """
    device = keys.device
    draw = (torch.arange(draws, device=device) + first)[..., None]
    key = (keys[:, 0, None, None], keys[:, 1, None, None])
    groups, pairs = -(-coordinates // 8), -(-coordinates // 2)
    counter = draw * groups + torch.arange(groups, device=device)
    nothing = torch.zeros((), dtype=torch.int64, device=device)
    words = philox((counter & _WORD, counter >> 32, nothing, nothing), key)
    bits = torch.stack([half for word in words for half in (word & _HALF, word >> 16)], 3)
    bits = bits.flatten(2)[..., :coordinates]
    counter = draw * pairs + torch.arange(pairs, device=device)
    w0, w1, w2, w3 = philox((counter & _WORD, (counter >> 32) + (FURTHER >> 32), nothing, nothing), key)
    further = torch.stack([_signed(w0, w1), _signed(w2, w3)], 3).flatten(2)[..., :coordinates]
    low, high = table.start[bits], table.stop[bits]
    last = len(table.low) - 1
    for _ in range(table.steps):  # the number of thresholds at or below, by halving
        middle = (low + high) >> 1
        open_ = low < high
        above = open_ & (table.low[middle.clamp(max=last)] <= further)
        low, high = torch.where(above, middle + 1, low), torch.where(open_ & ~above, middle, high)
    return (low - table.reach).to(torch.int16)


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Philox4x32-10: four int64 tensors of words below 2**32, in the shape to which counter and key broadcast.

    Args:
        counter: its four words, likewise below 2**32.
        key: its two words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _product(c0, MULTIPLIERS[0])
        high1, low1 = _product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & _WORD, (k1 + WEYL[1]) & _WORD
    return c0, c1, c2, c3


def key_words(keys: list[int], device: str) -> Tensor:
    """Keys of 64 bits as ``(B, 2)``, the low word first."""
    return torch.tensor([(key & _WORD, key >> 32) for key in keys], dtype=torch.int64, device=device)


def _product(word: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """The high and the low 32 bits of a product of two words, in parts below 2**49."""
    low = word * (by & _HALF)
    middle = word * (by >> 16) + (low >> 16)
    return middle >> 16, ((middle & _HALF) << 16) | (low & _HALF)


def _signed(low: Tensor, high: Tensor) -> Tensor:
    """64 bits less 2**63, so that signed integers are in the order of the bits."""
    return (high - 2**31) * 2**32 + low
