"""Exact boundaries for testing one binomial probability at several looks. numpy and scipy only.

Sources: Armitage, McPherson & Rowe (1969), JRSS A 132 (the recursion over looks); Lan & DeMets (1983), Biometrika 70
(spending alpha over looks); the recursion on counts themselves, without a normal approximation, is Jennison &
Turnbull (2000), "Group Sequential Methods", Chapter 12.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

#: Probability left out at each end of a distribution; what is left out is counted as an error.
_NEGLIGIBLE = 1e-16
_DIRECT = 1 << 22  # products above which a convolution goes through the Fourier transform


def boundary(p: float, looks: Sequence[int], spent: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """The smallest counts that reject "the probability is at most p" at each look.

    ``boundary[k]`` is the smallest count such that, under p, the probability of having reached a boundary at one of
    the looks 0..k is at most ``spent[k]``. It is computed on the distribution of the count among paths that have
    reached none before, look by look, so it knows how looks depend on each other and wastes only what whole counts
    force it to; what a look leaves unspent the next ones have.

    Reaching a boundary gets likelier as the probability grows (couple the draws: a success under the smaller stays
    one under the greater), so the level holds under every probability up to p, and however a path is stopped.

    Args:
        p: in (0, 1).
        looks: cumulative draws, increasing, >= 1.
        spent: cumulative error probability allowed up to each look, non-decreasing, in [0, 1).

    Returns:
        int64, one a look, in [1, looks[k] + 1]; ``looks[k] + 1`` where no count rejects.
    """
    found = np.empty(len(looks), dtype=np.int64)
    low, mass, used, before = 0, np.ones(1), 0.0, 0
    for k, n in enumerate(looks):
        low, mass, lost = _drawn(low, mass, n - before, p)
        before, used = n, used + lost
        tail = np.cumsum(mass[::-1])[::-1]
        # Rounding of the sums is far below one part in 1e9; the rest of alpha is not worth arguing about.
        rejecting = np.flatnonzero(used + tail <= spent[k] * (1 - 1e-9))
        first = int(rejecting[0]) if rejecting.size else len(mass)
        found[k] = low + first if first < len(mass) else n + 1
        if first < len(mass):
            used += float(tail[first])
            mass = mass[:first]
        low, mass, lost = _trimmed(low, mass)  # never empty: spent < 1, so not every path has rejected
        used += lost
    return found


def _drawn(low: int, mass: NDArray[np.float64], draws: int, p: float) -> tuple[int, NDArray[np.float64], float]:
    """The distribution after more draws; its lowest count, its values, and the probability left out."""
    first = int(stats.binom.ppf(_NEGLIGIBLE, draws, p))
    last = int(stats.binom.isf(_NEGLIGIBLE, draws, p))
    step = stats.binom.pmf(np.arange(first, last + 1), draws, p)
    lost = 2 * _NEGLIGIBLE
    if len(mass) * len(step) <= _DIRECT:
        return low + first, np.convolve(mass, step), lost
    # The transform's own error is of the order of 1e-16 in each value.
    after = np.maximum(signal.fftconvolve(mass, step), 0.0)
    return low + first, after, lost + 1e-17 * len(after)


def _trimmed(low: int, mass: NDArray[np.float64]) -> tuple[int, NDArray[np.float64], float]:
    """The same without a lower end of negligible probability, and that probability."""
    below = np.cumsum(mass)
    drop = min(int(np.searchsorted(below, _NEGLIGIBLE, side="right")), len(mass) - 1)
    return low + drop, mass[drop:], float(below[drop - 1]) if drop else 0.0
