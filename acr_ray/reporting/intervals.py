"""How sure the numbers are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from acr_ray.reporting.distribution import dkw_half_width
from acr_ray.reporting.source import Rows, Source
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
        (low, high); equal if all values are.
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


def mean_intervals(
    values: Iterable[ArrayLike], images: int, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> list[tuple[float, float]]:
    """`mean_interval` of several values of the same images at once, each as if it were alone.

    Args:
        values: k arrays of shape (images,); of many images they are taken one after the other.
        images: how many there are.
    """
    if images > MOST_RESAMPLED or not images:
        return [mean_interval(v, confidence, resamples, seed) for v in values]
    values = np.asarray(list(values), dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, len(values)))
    for k in range(resamples):
        means[k] = values @ np.bincount(rng.integers(0, images, images), minlength=images)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means / images, [tail, 1 - tail], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def p_a_bounds(rows: Rows, alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Per image a lower and an upper Clopper-Pearson bound on p_A, each at ``alpha``.

    Returns:
        Two arrays of shape (images,) in [0, 1]; ``None`` if the source holds no counts.
    """
    if rows.count is None or rows.draws is None:
        return None
    base = int(rows.draws.max()) + 1
    key, back = np.unique(rows.draws * base + rows.count, return_inverse=True)
    count, n = key % base, key // base
    return lower_bound(count, n, alpha)[back], upper_bound(count, n, alpha)[back]


def ecdf_band(
    source: Source, x: NDArray[np.float64], confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return a band around the share of images with p_A >= x.

    Its core bounds the share of *these* images for all x together, with probability 1 - alpha
    (`acr_ray.smoothing.ecdf_band`), if the source holds counts that did not decide themselves when drawing ended; else
    it is the estimate itself. Around it lies the Dvoretzky-Kiefer-Wolfowitz half width for the choice of images.

    Args:
        x: probabilities, shape (k,).

    Returns:
        (low, high), shape (k,), in [0, 1], NaN where p_A is not known; ``None`` without a number of images.
    """
    if not source.images:
        return None
    core = source.draws_band
    low, high = (source.distribution.at_least(x),) * 2 if core is None else core.at(x)
    half = dkw_half_width(source.images, confidence)
    unknown = x < source.distribution.known_from
    low, high = (np.where(unknown, np.nan, np.clip(v, 0, 1)) for v in (low - half, high + half))
    return low, high
