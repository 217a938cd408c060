"""Philox4x32-10 with NumPy: random bits as a function of a counter and a key.

Source: Salmon, Moraes, Dror & Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3". `lattice_reference` has the
same in plain integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acr_ray.smoothing.lattice_reference import MULTIPLIERS, ROUNDS, WEYL

Words = NDArray[np.uint64]
MASK, HALF = np.uint64(2**32 - 1), np.uint64(32)
BROADCAST_ROUNDS = 2  # in which a word still depends on a part of the counter only
LAST = (ROUNDS - 1) % 2  # which of the products the last round has made
_LOW, _QUARTER = np.uint64(2**16 - 1), np.uint64(16)
_M = np.array(MULTIPLIERS, dtype=np.uint64)
_WEYL = np.arange(ROUNDS, dtype=np.uint64)[:, None] * np.array(WEYL, dtype=np.uint64)


def round_keys(keys: Words) -> Words:
    """The keys of all rounds, ``(rounds, 2, *keys.shape)``. Args: keys of 64 bits, their low word first."""
    words = np.stack([keys & MASK, keys >> HALF])
    return (words + _WEYL.reshape(ROUNDS, 2, *[1] * keys.ndim)) & MASK


class Philox:
    """Philox for counters of one shape; its memory is used again at each call.

    Args:
        shape: of the counters.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._state = np.zeros((2, *shape), dtype=np.uint64)  # words 0 and 2, each in 64 bits
        self._products = [np.zeros((2, *shape), dtype=np.uint64) for _ in range(2)]
        # Halves of 64 bits as views, the low one first as on every machine that torch runs on.
        self._low_state = _parts(self._state, np.uint32)[..., 0]
        self._high = [_parts(products, np.uint32)[::-1, ..., 1] for products in self._products]
        self._low = [_parts(products, np.uint32)[::-1, ..., 0] for products in self._products]
        self._words = self._four(self._state.reshape(2, -1), self._products[LAST][::-1].reshape(2, -1))
        self._multipliers = _M.reshape(2, *[1] * len(shape))

    def __call__(self, counter: Sequence[Words], keys: Words) -> None:
        """Compute the random words; they stay until the next call.

        Args:
            counter: its four words, each below 2**32, in arrays that broadcast to the shape.
            keys: of `round_keys`, their last dimensions broadcast as well.
        """
        c0, c1, c2, c3 = counter
        for number in range(BROADCAST_ROUNDS):
            p0, p1 = c0 * _M[0], c2 * _M[1]
            k0, k1 = keys[number]
            out = self._state if number == BROADCAST_ROUNDS - 1 else (None, None)
            # The key first: what comes of one part of the counter is small.
            c0 = np.bitwise_xor((p1 >> HALF) ^ k0, c1, out=out[0])
            c2 = np.bitwise_xor((p0 >> HALF) ^ k1, c3, out=out[1])
            c1, c3 = p1 & MASK, p0 & MASK
        self._low[1][0], self._low[1][1] = c1, c3
        for number in range(BROADCAST_ROUNDS, ROUNDS):
            now = number % 2
            np.multiply(self._state, self._multipliers, out=self._products[now])
            # Word 0 takes from the product of word 2 and the other way round: the views are turned.
            np.bitwise_xor(self._high[now], self._low[1 - now], out=self._low_state)
            np.bitwise_xor(self._state, keys[number], out=self._state)

    def words(self) -> list[NDArray[np.uint32]]:
        """The four words, each of the counters' shape."""
        return self._four(self._low_state, self._low[LAST])

    def half(self, number: int, out: NDArray[np.intp]) -> None:
        """Write half words, the low one of word 0 first, then its high one, into ``(counters,)``.

        Args:
            number: which, 0 to 7.
        """
        word, target = self._words[number // 2], out.view(np.uint64)
        if number % 2:
            np.right_shift(word, _QUARTER, out=target)
        if number % 2 == 0 or number // 2 % 2:  # words 1 and 3 are products, with more above
            np.bitwise_and(target if number % 2 else word, _LOW, out=target)

    @staticmethod
    def _four(even: NDArray, odd: NDArray) -> list[NDArray]:
        return [even[0], odd[0], even[1], odd[1]]


def _parts(words: Words, kind: type) -> NDArray:
    return words.view(kind).reshape(*words.shape, -1)
