"""What a distribution of p_A is worth at any budget ``(n, alpha)``: no GPU, no new draws.

The paper's argument: ACR and the order of methods by ACR depend on the budget, p_A does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from acr_ray.reporting.distribution import Distribution
from acr_ray.smoothing.bounds import lower_bound, radius

#: Above this many distinct values p_A is rounded down to a grid of about as many, dense near 1: each
#: radius then errs downwards, by less than any printed digit.
MOST_VALUES = 20_000


@dataclass(frozen=True)
class AtBudget:
    """Radii and numbers of images at one budget; the rest of the images certifies nothing.

    Attributes:
        radii: radii above 0, ascending, in input units, shape (k,).
        weight: images at each radius, shape (k,), out of ``total``.
    """

    radii: NDArray[np.float64]
    weight: NDArray[np.float64]
    total: float

    @property
    def acr(self) -> float:
        """Average certified radius over all images, in input units."""
        return float(self.radii @ self.weight) / self.total

    def certified_accuracy(self, radii: ArrayLike) -> list[float]:
        """Return the share of images with a radius of at least each given one, in [0, 1]."""
        tail = np.concatenate([np.cumsum(self.weight[::-1])[::-1], [0.0]])
        held = tail[np.searchsorted(self.radii, np.asarray(radii), side="left")]
        return np.clip(held / self.total, 0, 1).tolist()


def at_budget(distribution: Distribution, sigma: float, n: int, alpha: float) -> AtBudget:
    """Certificates as ``n`` draws at ``alpha`` would give them, were each count ``floor(n * p_A)``.

    The selection of the class is taken to find the label wherever p_A > 1/2. At the source's own budget
    these are then its own counts. With a larger ``n`` it is an extrapolation: an
    estimate of exactly 1 stays 1, so the result errs upwards there.
    """
    p, weight = _thinned(distribution)
    counts = np.floor(p * n + 1e-6).astype(np.int64)
    distinct, back = np.unique(np.minimum(counts, n), return_inverse=True)
    # numpy's stubs do not know that sums of weights are floats.
    merged = cast(NDArray[np.float64], np.bincount(back, weights=weight, minlength=distinct.size))
    held = radius(_bounds(n, alpha, distinct.tobytes()), sigma)
    certified = held > 0
    return AtBudget(held[certified], merged[certified], distribution.total)


def radii_at_budget(p_a: ArrayLike, sigma: float, n: int, alpha: float) -> NDArray[np.float64]:
    """`at_budget` image by image: the counted radius of each, shape (images,); 0 if p_A is at most 1/2 or NaN."""
    p, back = np.unique(np.nan_to_num(np.asarray(p_a, dtype=np.float64), nan=0.0), return_inverse=True)
    counts = np.minimum(np.floor(p * n + 1e-6).astype(np.int64), n)
    distinct, again = np.unique(counts, return_inverse=True)
    held = radius(_bounds(n, alpha, distinct.tobytes()), sigma)[again]
    return np.where(p > 0.5, held, 0.0)[back]


@lru_cache(maxsize=64)
def _bounds(n: int, alpha: float, counts: bytes) -> NDArray[np.float64]:
    """Return lower bounds of int64 counts, remembered: sources with the same values share them."""
    bounds = lower_bound(np.frombuffer(counts, dtype=np.int64), n, alpha)
    bounds.flags.writeable = False
    return bounds


def _thinned(distribution: Distribution) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    certain = distribution.p > 0.5
    p, weight = distribution.p[certain], distribution.weight[certain]
    if p.size <= MOST_VALUES:
        return p, weight
    z = special.ndtri(np.minimum(p, 1 - 1e-12))
    step = (z[-1] - z[0]) / MOST_VALUES
    first = np.concatenate([[True], np.diff(np.floor((z - z[0]) / step)) > 0])
    first[-1] = True
    return p[first], np.add.reduceat(weight, np.flatnonzero(first))


def sensitivity(p_a: ArrayLike, sigma: float) -> NDArray[np.float64]:
    """``dR/dp_A = sigma / phi(Phi^-1(p_A))``: how much radius a gain in p_A buys, in input units.

    Infinite at 1: ACR pays most for images that were never in danger (the paper's Section 4).
    """
    p = np.asarray(p_a, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return sigma * np.sqrt(2 * np.pi) * np.exp(special.ndtri(p) ** 2 / 2)


def acr_by_budget(
    distribution: Distribution, sigma: float, budgets: Sequence[int], alphas: Sequence[float]
) -> NDArray[np.float64]:
    """ACR at every budget, shape (len(alphas), len(budgets))."""
    return np.array([[at_budget(distribution, sigma, n, a).acr for n in budgets] for a in alphas])


def rank_changes(names: Sequence[str], acrs: ArrayLike, budgets: Sequence[float]) -> list[tuple[str, str, float]]:
    """Who overtakes whom as the budget grows: ``(riser, overtaken, first budget at which it leads)``.

    Args:
        names: methods.
        acrs: their ACR, shape (methods, budgets).
        budgets: numbers of draws, ascending, or values of alpha, descending.
    """
    acrs = np.asarray(acrs)
    changes = []
    for i in range(len(names)):
        for j in range(len(names)):
            behind = acrs[i, :-1] < acrs[j, :-1]
            leads = acrs[i, 1:] > acrs[j, 1:]
            changes += [(names[i], names[j], budgets[int(k) + 1]) for k in np.flatnonzero(behind & leads)]
    return changes
