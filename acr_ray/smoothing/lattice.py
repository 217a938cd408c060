"""Lattice noise with NumPy: equal to `lattice_reference`, for any draws, order and number of images at once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acr_ray.smoothing.lattice_law import BITS, GUIDE_BITS, LatticeLaw
from acr_ray.smoothing.lattice_reference import FIRST, FURTHER
from acr_ray.smoothing.philox import HALF, MASK, Philox, Words, round_keys

UNDECIDED = -(2**15)  # in the guide: 16 bits are not enough
AT_ONCE = 2**14  # counters: what they need stays in a processor core's own cache
MOST_SHAPES = 8  # of which buffers are kept
_FIRST, _FURTHER = np.array([FIRST], dtype=np.uint64), np.array([FURTHER], dtype=np.uint64)


class LatticeDraws:
    """Draws lattice noise of one law.

    Args:
        law: of the numbers.
    """

    def __init__(self, law: LatticeLaw) -> None:
        self.law = law
        self._table = table_of(law)
        self._kept: dict[tuple[int, int, int], _Chunk] = {}

    def __call__(
        self, keys: Sequence[int], first: int, draws: int, coordinates: int, out: NDArray[np.int16] | None = None
    ) -> NDArray[np.int16]:
        """Draw whole numbers K; ``K / law.levels`` is the noise in input units.

        Args:
            keys: of `lattice_reference.stream_key`, one for each image.
            first: index of the first draw within the phase, >= 0.
            draws: of each image, >= 1.
            coordinates: numbers in a draw, in the order (H, W, C).
            out: int16 ``(len(keys), draws, coordinates)`` to draw into; None: new memory.

        Returns:
            int16 ``(len(keys), draws, coordinates)``.
        """
        noise = np.empty((len(keys), draws, coordinates), dtype=np.int16) if out is None else out
        # Eight parts, of which each takes 16 bits of the counters; the last ones may be shorter, or empty.
        groups = -(-coordinates // 8)
        padded = noise if coordinates == 8 * groups else np.empty((len(keys), draws, 8 * groups), dtype=np.int16)
        lanes = padded.reshape(len(keys), draws, 8, groups)
        schedule = round_keys(np.array(keys, dtype=np.uint64))
        left: list[_Left] = []
        for corner, target in _chunks(lanes):
            left.append(self._guess(schedule, first, corner, target))
            if sum(len(some.bits) for some in left) > AT_ONCE:
                self._settle(schedule, first, left, lanes)
                left = []
        if left:
            self._settle(schedule, first, left, lanes)
        if padded is not noise:
            noise[...] = padded[..., :coordinates]
        return noise

    def _guess(self, schedule: Words, first: int, corner: tuple[int, int, int], out: NDArray[np.int16]) -> _Left:
        """Draw a chunk from the first 16 bits of each number. Returns what they leave open."""
        many, deep, _, wide = out.shape
        k, d, g = corner
        draw = np.arange(first + d, first + d + deep, dtype=np.uint64)[:, None]
        high = draw >> HALF
        group = np.arange(g, g + wide, dtype=np.uint64)
        chunk = self._chunk((many, deep, wide))
        counter = (draw & MASK, high if high[0] != high[-1] else high[:1], group, _FIRST)
        chunk.philox(counter, schedule[:, :, k : k + many, None, None])
        open_, bits = [], []
        for lane in range(8):
            chunk.philox.half(lane, chunk.bits)
            np.take(self._table.guide, chunk.bits, out=chunk.numbers, mode="wrap")  # all in range; "raise" would copy
            out[:, :, lane] = chunk.numbers.reshape(many, deep, wide)
            places = (chunk.numbers == UNDECIDED).nonzero()[0]
            open_.append(places)
            bits.append(chunk.bits[places])
        lane = np.repeat(np.arange(8), [len(places) for places in open_])
        row, column = _divided(np.concatenate(open_), wide)
        image, row = _divided(row, deep) if many > 1 else (np.zeros_like(row), row)
        return _Left(image + k, row + d, lane, column + g, np.concatenate(bits))

    def _settle(self, schedule: Words, first: int, left: Sequence[_Left], lanes: NDArray[np.int16]) -> None:
        """Draw what 16 bits left open. Together: there are few, and each call of NumPy costs."""
        image, row, lane, group, bits = (np.concatenate(parts) for parts in zip(*left, strict=True))
        if not len(bits):
            return
        draw, coordinate = row.astype(np.uint64) + np.uint64(first), lane * lanes.shape[-1] + group
        keys = schedule if schedule.shape[-1] == 1 else schedule[..., image]
        philox = Philox(row.shape)
        philox((draw & MASK, draw >> HALF, (coordinate >> 1).astype(np.uint64), _FURTHER), keys)
        w0, w1, w2, w3 = philox.words()
        odd = (coordinate & 1).astype(bool)
        further = np.where(odd, w3, w1).astype(np.uint64) << HALF | np.where(odd, w2, w0)
        lanes[image, row, lane, group] = self._table.settled(bits, further)

    def _chunk(self, shape: tuple[int, int, int]) -> _Chunk:
        if shape not in self._kept:
            if len(self._kept) >= MOST_SHAPES:
                self._kept.clear()
            self._kept[shape] = _Chunk(shape)
        return self._kept[shape]


def _chunks(lanes: NDArray[np.int16]) -> Iterator[tuple[tuple[int, int, int], NDArray[np.int16]]]:
    """Parts of at most `AT_ONCE` counters, and where each begins: as many groups, then draws, then images."""
    images, draws, _, groups = lanes.shape
    wide = min(groups, AT_ONCE)
    deep = max(1, min(draws, AT_ONCE // wide))
    many = max(1, min(images, AT_ONCE // (wide * deep)))
    for k in range(0, images, many):
        for d in range(0, draws, deep):
            for g in range(0, groups, wide):
                yield (k, d, g), lanes[k : k + many, d : d + deep, :, g : g + wide]


class _Left(NamedTuple):
    """Numbers that are still undecided: where they are, and their first 16 bits; arrays (N,)."""

    image: NDArray[np.intp]
    row: NDArray[np.intp]
    lane: NDArray[np.intp]
    group: NDArray[np.intp]
    bits: NDArray[np.intp]


class _Chunk:
    """Memory for one chunk: new memory each time would fault its pages in again.

    Attributes:
        bits: of one lane, for `numbers`.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.philox = Philox(shape)
        self.bits = np.empty(math.prod(shape), dtype=np.intp)
        self.numbers = np.empty(math.prod(shape), dtype=np.int16)


def _divided(whole: NDArray[np.intp], by: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Quotient and remainder; ``np.divmod`` takes several times as long."""
    quotient = whole // by
    return quotient, whole - quotient * by


class Table:
    """A law's thresholds as arrays.

    Attributes:
        guide: int16 (2**16,): the number that the first 16 bits decide, or `UNDECIDED`.
        start, stop: int64 (2**16,): thresholds ``start[b]`` to ``stop[b] - 1`` lie among the numbers whose first 16
            bits are b.
        low: uint64 (thresholds,): the last 64 bits of each threshold.
    """

    def __init__(self, law: LatticeLaw) -> None:
        self._thresholds, self._reach = law.thresholds(), law.reach
        further = BITS - GUIDE_BITS
        high = np.array([t >> further for t in self._thresholds], dtype=np.int64)
        self.low = np.array([t % 2**further for t in self._thresholds], dtype=np.uint64)
        # The first 64 bits; a threshold of 2**80 is above all numbers, and comes to a tie at worst.
        self._first64 = np.array([min(t >> GUIDE_BITS, 2**64 - 1) for t in self._thresholds], dtype=np.uint64)
        every = np.arange(2**GUIDE_BITS)
        # A threshold at the very beginning of its bucket is at or below all numbers in there.
        self.start = np.searchsorted(np.where(self.low == 0, high, high + 1), every, side="right").astype(np.int32)
        self.stop = np.searchsorted(high, every, side="right").astype(np.int32)
        self.guide = np.where(self.start == self.stop, self.start - self._reach, UNDECIDED).astype(np.int16)

    def settled(self, bits: NDArray[np.intp], further: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The numbers that all 80 bits give where 16 did not decide.

        Args:
            bits: the first 16, (N,).
            further: the other 64, (N,).
        """
        first = self.start[bits]
        rank = first + (self.low[first] <= further)  # where one threshold is in question, as nearly always
        several = np.flatnonzero(self.stop[bits] - first > 1)
        if len(several):
            first64 = (bits[several].astype(np.uint64) << np.uint64(48)) | (further[several] >> np.uint64(GUIDE_BITS))
            rank[several] = np.searchsorted(self._first64, first64, side="left")
            tied = self._first64[np.minimum(rank[several], len(self._first64) - 1)] == first64
            for i in several[tied]:
                rank[i] = bisect_right(self._thresholds, (int(bits[i]) << 64) + int(further[i]))
        return rank - self._reach


@lru_cache(maxsize=8)
def table_of(law: LatticeLaw) -> Table:
    """The table of a law, made once."""
    return Table(law)
