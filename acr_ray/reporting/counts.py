"""From a radius back to the count it was computed from."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from acr_ray.smoothing.bounds import lower_bound, radius


def counts_from_radius(radii: ArrayLike, sigma: float, n: int, alpha: float) -> NDArray[np.int64]:
    """The count out of ``n`` whose certified radius is nearest to each given one.

    The radius is ``sigma * Phi^-1(p)`` with p the Clopper-Pearson lower bound of the count, so p solves
    ``P[Binomial(n, p) >= count] = alpha``; given p that equation gives the count up to its rounding, and the
    neighbours are compared in radius. Radii above what ``n`` draws can certify give ``n``.

    Args:
        radii: certified radii, >= 0, any shape, in input units.
        sigma, n, alpha: the budget they were certified with.

    Returns:
        int64 in (n/2, n], the shape of ``radii``.
    """
    given, back = np.unique(np.asarray(radii, dtype=np.float64), return_inverse=True)
    lowest = _smallest_certified(n, alpha)
    if given.size > n // 8:  # dense: one table of all counts is cheaper
        counts = np.arange(lowest, n + 1)
        grid = radius(lower_bound(counts, n, alpha), sigma)
        nearest = counts[np.searchsorted((grid[1:] + grid[:-1]) / 2, given)]
    else:
        p = special.ndtr(given / sigma)
        about = np.nan_to_num(stats.binom.isf(alpha, n, p), nan=n)
        near = np.clip(about[:, None] + np.arange(-1, 4), lowest, n)
        gap = np.abs(radius(lower_bound(near, n, alpha), sigma) - given[:, None])
        nearest = near[np.arange(given.size), np.argmin(gap, axis=1)]
    return nearest.astype(np.int64)[back].reshape(np.shape(radii))


def _smallest_certified(n: int, alpha: float) -> int:
    """The smallest count out of ``n`` with a lower bound above 1/2; ``n`` if there is none."""
    count = int(np.clip(stats.binom.isf(alpha, n, 0.5), 0, n))
    while count < n and float(lower_bound(count, n, alpha)) <= 0.5:
        count += 1
    while count > 0 and float(lower_bound(count - 1, n, alpha)) > 0.5:
        count -= 1
    return count
