"""Lattice noise on the CPU: equal to `lattice_reference`, for any draws, order and number of images at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from acr_ray.smoothing.lattice_law import BITS, GUIDE_BITS, LatticeLaw
from acr_ray.smoothing.lattice_reference import FURTHER
from acr_ray.smoothing.philox import random_words

UNDECIDED = -(2**15)  # in the guide: 16 bits are not enough
AT_ONCE = 2**18  # numbers drawn together: each call of NumPy costs
LOOKED_UP = 2**15  # numbers looked up together: their indices stay in a processor core's own cache


class LatticeDraws:
    """Draws lattice noise of one law.

    Args:
        law: of the numbers.
    """

    def __init__(self, law: LatticeLaw) -> None:
        self.law = law
        self._table = table_of(law)
        self._index = np.empty(LOOKED_UP, dtype=np.intp)

    def __call__(
        self, keys: Sequence[int], first: int, draws: int, coordinates: int, out: NDArray[np.int16] | None = None
    ) -> NDArray[np.int16]:
        """Draw whole numbers K; ``K / law.levels`` is the noise in input units.

        Args:
            keys: of `lattice_reference.stream_key`, one for each image.
            first: index of the first draw within the phase, >= 0.
            draws: of each image, >= 1.
            coordinates: numbers in a draw, in the order (H, W, C).
            out: int16 ``(len(keys), draws, coordinates)`` to draw into, contiguous; None: new memory.

        Returns:
            int16 ``(len(keys), draws, coordinates)``.
        """
        noise = np.empty((len(keys), draws, coordinates), dtype=np.int16) if out is None else out
        streams, padded = np.array(keys, dtype=np.uint64), 8 * -(-coordinates // 8)
        deep = max(1, min(draws, AT_ONCE // padded))
        many = max(1, min(len(keys), AT_ONCE // (padded * deep)))
        for k in range(0, len(keys), many):
            for d in range(0, draws, deep):
                some = streams[k : k + many]
                begin = np.full(len(some), first + d, dtype=np.int64)
                self._draw(some, begin, noise[k : k + many, d : d + deep])
        return noise

    def runs(
        self, keys: NDArray[np.uint64], first: NDArray[np.int64], draws: int, coordinates: int
    ) -> NDArray[np.int16]:
        """Draw some draws of each of many streams: the same numbers as all at once or in any company.

        Args:
            keys: of `lattice_reference.stream_key`, ``(N,)``.
            first: index of each one's first draw within its phase, >= 0, ``(N,)``.
            draws: consecutive draws of each.
            coordinates: numbers in a draw.

        Returns:
            int16 ``(N, draws, coordinates)``.
        """
        noise = np.empty((len(keys), draws, coordinates), dtype=np.int16)
        many = max(1, AT_ONCE // (8 * -(-coordinates // 8) * draws))
        for k in range(0, len(keys), many):
            self._draw(keys[k : k + many], first[k : k + many], noise[k : k + many])
        return noise

    def _draw(self, keys: NDArray[np.uint64], first: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Draw ``out``; ``first``: index of each key's first draw, (keys,)."""
        many, deep, coordinates = out.shape
        groups = -(-coordinates // 8)
        # A word's low half comes first, as on every machine that torch runs on.
        halves = random_words(keys, (first * groups).astype(np.uint64), deep * groups).view(np.uint16).reshape(-1)
        whole = coordinates == 8 * groups and out.flags.c_contiguous
        numbers = out.reshape(-1) if whole else np.empty(len(halves), dtype=np.int16)
        for at in range(0, len(halves), LOOKED_UP):
            some = halves[at : at + LOOKED_UP]
            index = self._index[: len(some)]
            np.copyto(index, some)
            # All are in range; "raise" would copy.
            np.take(self._table.guide, index, out=numbers[at : at + LOOKED_UP], mode="wrap")
        undecided = (numbers == UNDECIDED).nonzero()[0]
        row, coordinate = _divided(undecided, 8 * groups)
        image, draw = _divided(row, deep) if many > 1 else (np.zeros_like(row), row)
        numbers[undecided] = self._table.settled(
            halves[undecided], _further_bits(keys[image], first[image] + draw, coordinate, coordinates)
        )
        if not whole:
            out[...] = numbers.reshape(many, deep, 8 * groups)[..., :coordinates]


def _further_bits(
    keys: NDArray[np.uint64], draw: NDArray[np.int64], coordinate: NDArray[np.intp], coordinates: int
) -> NDArray[np.uint64]:
    """The 64 further bits of some numbers, all arrays (N,)."""
    if not len(draw):
        return np.empty(0, dtype=np.uint64)
    pairs = -(-coordinates // 2)
    begin = np.uint64(FURTHER) + (draw * pairs + (coordinate >> 1)).astype(np.uint64)
    words = random_words(keys, begin, 1).view(np.uint64)  # (N, 2): the low word of each comes first
    return np.where(coordinate & 1, words[:, 1], words[:, 0])


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

    @property
    def signed_low(self) -> NDArray[np.int64]:
        """``low`` less 2**63: for torch and Triton, whose 64-bit numbers are signed, in the same order."""
        return (self.low ^ np.uint64(2**63)).view(np.int64)

    def settled(self, bits: NDArray[np.integer], further: NDArray[np.uint64]) -> NDArray[np.int64]:
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
