"""How sure the numbers are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from acr_ray.reporting.source import Rows
from acr_ray.smoothing.bounds import lower_bound, upper_bound

#: Above this many images the bootstrap distribution of a mean is its normal limit, and that is used.
MOST_RESAMPLED = 20_000


def mean_interval(
    values: ArrayLike, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of a mean over images: of ACR, or of a paired difference.

    Args:
        values: one value an image, shape (images,), at least one.
        seed: of the resampling; the same values give the same interval.

    Returns:
        (low, high); equal where all values are.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not 0 < confidence < 1:
        raise ValueError("at least one value, and a confidence in (0, 1)")
    tail = (1 - confidence) / 2
    if values.size > MOST_RESAMPLED:
        half = special.ndtri(1 - tail) * values.std() / np.sqrt(values.size)
        return float(values.mean() - half), float(values.mean() + half)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for k in range(resamples):
        means[k] = values[rng.integers(0, values.size, values.size)].mean()
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def p_a_bounds(rows: Rows, alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Per image a lower and an upper Clopper-Pearson bound on p_A, each at ``alpha``.

    Returns:
        Two arrays of shape (images,) in [0, 1]; ``None`` where the source holds no counts.
    """
    if rows.count is None or rows.draws is None:
        return None
    base = int(rows.draws.max()) + 1
    key, back = np.unique(rows.draws * base + rows.count, return_inverse=True)
    count, n = key % base, key // base
    return lower_bound(count, n, alpha)[back], upper_bound(count, n, alpha)[back]
