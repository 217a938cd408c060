"""Random numbers from a seed alone: counter-based, vectorised, the same on every machine and version of numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): uint64 to unrelated uint64, one to one, elementwise."""
    z = values ^ (values >> np.uint64(30))
    z = z * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hashed(base: int, numbers: np.ndarray) -> np.ndarray:
    """63-bit seeds (int64, >= 0), one for each of `numbers` (int64, any shape), from the seed `base`."""
    counters = np.atleast_1d(np.asarray(numbers, dtype=np.int64)).view(np.uint64) + np.uint64(1)
    return (mix(np.uint64(base) + counters * _GOLDEN) >> np.uint64(1)).view(np.int64)


def uniforms(seeds: Sequence[int] | np.ndarray, draws: int) -> np.ndarray:
    """float64 (len(seeds), draws) in [0, 1): row i is a function of seeds[i] alone."""
    start = mix(np.asarray(seeds, dtype=np.int64).view(np.uint64))
    counters = np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
    return to_unit(mix(start[:, None] + counters[None, :]))


def to_unit(raw: np.ndarray) -> np.ndarray:
    """uint64 to float64 in [0, 1) by the upper 53 bits."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
