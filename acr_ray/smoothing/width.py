"""Planning for the stopping rule `width`: where an image will probably stop, and so where alpha is best spent.

numpy and scipy only. All of it rests on the selection draws, which are independent of the draws that the bounds use;
a bad plan costs draws or radius, never validity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from acr_ray.smoothing.bounds import lower_bound, radius

#: Chosen by measured efficiency, see `jobs.benchmarks.simulate`.
EVERYWHERE = 0.05  # part of alpha that all looks share evenly, whatever the plan
AT_THE_LAST = 0.1  # part of alpha that the last look has at least
NOMINAL = 0.4  # part of alpha that a look is taken to have while planning
PLAUSIBLE = 64  # values of p_A that stand for what the selection draws leave open
HOPELESS = 0.01  # chance of exceeding 1/2 with all n draws below which an image is given up
MOST_PRIOR = 1000  # selection draws that count as prior information


def alpha_shares(
    looks: Sequence[int], n0: int, count0: int, alpha: float, sigma: float, tolerance: float
) -> NDArray[np.float64]:
    """How alpha is split over looks for an image whose selection draws gave its class ``count0`` of ``n0`` times.

    For each value of p_A that the selection draws leave plausible (quantiles of the posterior under Jeffreys'
    prior) it is known at which look the tolerance would be met; a look's share is the part of those values that
    stop there, after a small part has been spread evenly and another kept for the last look.

    Returns:
        (K,), positive, summing to ``alpha`` (never above it).
    """
    if n0 > MOST_PRIOR:
        n0, count0 = MOST_PRIOR, round(count0 * MOST_PRIOR / n0)
    n = np.asarray(looks, dtype=np.float64)
    p = special.betaincinv(count0 + 0.5, n0 - count0 + 0.5, (np.arange(PLAUSIBLE) + 0.5) / PLAUSIBLE)[:, None]
    met = _gain(p, n, alpha * NOMINAL, alpha, sigma) <= tolerance
    met[:, -1] = True
    part = np.bincount(met.argmax(axis=1), minlength=n.size) / PLAUSIBLE
    part = EVERYWHERE / n.size + (1 - EVERYWHERE) * part
    if part[-1] < AT_THE_LAST:
        part[:-1] *= (1 - AT_THE_LAST) / (1 - part[-1])
        part[-1] = AT_THE_LAST
    return alpha * (1 - 1e-12) * part / part.sum()


def stopping_counts(
    looks: Sequence[int], shares: ArrayLike, alpha: float, sigma: float, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The counts at which a look stops: the first whose bound exceeds 1/2, and the last that meets the tolerance.

    A count meets it if all n draws, were they to keep the share seen so far, would with the whole of alpha certify
    a radius at most ``tolerance`` above this look's. (The gain grows with the share above 1/2, so the counts that
    meet it are an interval.)

    Returns:
        two int64 arrays (K,); the second is below the first where no count stops. The last look stops in any case.
    """
    n, shares = np.asarray(looks, dtype=np.int64), np.asarray(shares, dtype=np.float64)
    some = _last_true(lambda c: lower_bound(c, n, shares) <= 0.5, np.zeros_like(n), n) + 1

    def meets(count: NDArray[np.int64]) -> NDArray[np.bool_]:
        return _gain(count / n, n, shares, alpha, sigma) <= tolerance

    return some, _last_true(meets, some - 1, n)


def hopeless_counts(looks: Sequence[int], n0: int, alpha: float) -> NDArray[np.float64]:
    """Counts, selection draws included, below which n draws would hardly certify anything; (K,), the last is 0.

    The chance that the count of all n draws reaches what certifies p > 1/2 there, given the share so far: normal on
    the scale of `futility.score`, with a flat prior.
    """
    n = np.asarray(looks, dtype=np.float64)
    whole = np.array([looks[-1]])
    enough = _last_true(lambda c: lower_bound(c, whole, alpha) <= 0.5, np.zeros_like(whole), whole)[0] + 1
    needed = 2 * np.sqrt(n[-1]) * (np.arcsin(np.sqrt(min(enough / n[-1], 1.0))) - np.pi / 4)
    seen = n + n0
    ratio = np.maximum(n[-1] / seen, 1.0)
    scores = (needed + special.ndtri(HOPELESS) * np.sqrt(ratio - 1)) / np.sqrt(ratio)
    counts = seen * np.sin(np.clip(np.pi / 4 + scores / (2 * np.sqrt(seen)), 0, np.pi / 2)) ** 2
    return np.where(np.arange(n.size) == n.size - 1, 0.0, counts)


def _gain(p: NDArray[np.float64], n: NDArray, shares: ArrayLike, alpha: float, sigma: float) -> NDArray[np.float64]:
    """Radius that the last look would have above each look's own, at a share p of draws at both."""
    whole = radius(lower_bound(np.floor(p * n[-1] + 1e-9), n[-1], alpha), sigma)
    return whole - radius(lower_bound(np.floor(p * n + 1e-9), n, shares), sigma)


def _last_true(test, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last count in (low, high] for which ``test`` holds, if it holds up to there; ``low`` if for none."""
    low, high = low.copy(), high + 1
    while np.any(high - low > 1):
        middle = (low + high) // 2
        # Where the search is over, middle is low, whose test is already known.
        holds = test(np.maximum(middle, 0)) | (middle == low)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return low
