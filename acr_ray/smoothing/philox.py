"""Philox4x32-10 on the CPU: random bits as a function of a key and a counter.

Source: Salmon, Moraes, Dror & Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3". `lattice_reference` has the
same in plain integers. torch has it, too, several times as fast as NumPy can do it, but does not promise it yet: it is
used where it is there and gives the published words.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from acr_ray.smoothing.lattice_reference import MULTIPLIERS, ROUNDS, WEYL, philox4x32

_MASK, _HALF = np.uint64(2**32 - 1), np.uint64(32)


def random_words(keys: NDArray[np.uint64], first: NDArray[np.uint64], counters: int) -> NDArray[np.uint32]:
    """The words of consecutive counters, four each.

    Args:
        keys: of 64 bits, the low word is the first, ``(B,)``.
        first: of 64 bits, ``(B,)``: where each row's counters begin; the two high words of a counter are 0.
        counters: of each row, >= 1.

    Returns:
        uint32 ``(B, 4 * counters)``.
    """
    return _by_torch(keys, first, counters) if torch_has_it() else by_numpy(keys, first, counters)


def by_numpy(keys: NDArray[np.uint64], first: NDArray[np.uint64], counters: int) -> NDArray[np.uint32]:
    """As `random_words`."""
    at = np.add(first[:, None], np.arange(counters, dtype=np.uint64), dtype=np.uint64)
    nothing = np.zeros(at.shape, dtype=np.uint64)
    c0, c1, c2, c3 = at & _MASK, at >> _HALF, nothing, nothing
    k0, k1 = keys[:, None] & _MASK, keys[:, None] >> _HALF
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _MASK, (p0 >> _HALF) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + np.uint64(WEYL[0])) & _MASK, (k1 + np.uint64(WEYL[1])) & _MASK
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32).reshape(len(keys), -1)


def _by_torch(keys: NDArray[np.uint64], first: NDArray[np.uint64], counters: int) -> NDArray[np.uint32]:
    words = torch.empty(len(keys), 4 * counters, dtype=torch.int32)
    state = np.empty((len(keys), 1, 2), dtype=np.uint64)  # a key and an offset for each row
    state[:, 0, 0], state[:, 0, 1] = keys, first
    torch.ops.aten._philox_randint_(words, torch.from_numpy(state), -(2**31), None)
    return words.numpy().view(np.uint32)


@lru_cache(maxsize=1)
def torch_has_it() -> bool:
    """Whether this torch has Philox, and gives the words that it should."""
    keys, first = (np.array(values, dtype=np.uint64) for values in ((0, 2**64 - 1, 5), (0, 2**63, 2**32 - 1)))
    expected = [
        word
        for key, start in zip(keys.tolist(), first.tolist(), strict=True)
        for at in range(start, start + 300)
        for word in philox4x32((at % 2**32, at // 2**32, 0, 0), (key % 2**32, key // 2**32))
    ]
    try:
        return _by_torch(keys, first, 300).ravel().tolist() == expected
    except (AttributeError, RuntimeError, TypeError):
        return False
