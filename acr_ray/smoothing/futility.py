"""When to give a claim up: a claim not made is never wrong, so this is a matter of cost alone. numpy and scipy only.

Source: Bayesian optimal stopping by backward induction, as Barber & Jennison (2002), Biometrika 89, do for group
sequential tests; the variance-stabilised scale is Anscombe's (1948).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

#: The scale on which counts are compared with a threshold: standard deviations, from -REACH to REACH.
REACH, STEP = 9.0, 0.04


def score(count: ArrayLike, n: ArrayLike, p: ArrayLike) -> NDArray[np.float64]:
    """How many standard deviations a count lies above ``n * p``: ``2 sqrt(n) (asin sqrt(count/n) - asin sqrt(p))``."""
    n = np.asarray(n, dtype=np.float64)
    share = np.clip(np.asarray(count) / n, 0.0, 1.0)
    return 2 * np.sqrt(n) * (np.arcsin(np.sqrt(share)) - np.arcsin(np.sqrt(p)))


def count_at(scored: ArrayLike, n: ArrayLike, p: ArrayLike) -> NDArray[np.float64]:
    """The inverse of `score`, as a real number in [0, n]."""
    n = np.asarray(n, dtype=np.float64)
    angle = np.arcsin(np.sqrt(p)) + np.asarray(scored) / (2 * np.sqrt(n))
    return n * np.sin(np.clip(angle, 0.0, np.pi / 2)) ** 2


def give_up_scores(
    thresholds: ArrayLike, looks: Sequence[int], boundaries: NDArray[np.int64], worth: ArrayLike
) -> NDArray[np.float64]:
    """Below which score it pays to stop trying to claim each threshold.

    Backward induction over looks: going on costs one for each draw, a claim is worth ``worth`` draws, and what is
    known of the probability is the share seen so far with a flat prior on the scale of `score`, so that the score at
    the next look is normal with a known mean and variance. The value of a claim includes that of trying for the
    next threshold from there.

    Args:
        thresholds: increasing, in (0, 1), shape (R,).
        looks: cumulative draws, increasing, shape (K,).
        boundaries: counts that claim, shape (K, R); see `spending.boundary`.
        worth: draws that a claim is worth, > 0, one for all or shape (R,).

    Returns:
        (K, R): with no score at or above the entry is it worth going on from below; ``-inf`` where it always is.
        The last look's entry is ``inf``.
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    worth = np.broadcast_to(np.asarray(worth, dtype=np.float64), thresholds.shape)
    n = np.asarray(looks, dtype=np.float64)
    grid = np.arange(-REACH, REACH + STEP / 2, STEP)
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    found = np.full((len(n), len(thresholds)), np.inf)
    after = np.zeros((len(thresholds), len(grid)))  # value at the next look, before what is seen there is used
    for k in range(len(n) - 1, -1, -1):
        if k < len(n) - 1:
            ratio = n[k + 1] / n[k]
            spread = np.sqrt(ratio - 1)
            chance = np.diff(special.ndtr((edges[None, :] - grid[:, None] * np.sqrt(ratio)) / spread), axis=1)
            going_on = after @ chance.T - (n[k + 1] - n[k])
        else:
            going_on = np.full_like(after, -1.0)
        value = np.maximum(going_on, 0.0)
        for r in range(len(thresholds) - 1, -1, -1):
            pays = np.flatnonzero(going_on[r] > 0)
            if pays.size:
                found[k, r] = grid[pays[0]] if pays[0] > 0 else -np.inf
            claimed = grid >= _claim(boundaries[k, r], n[k], thresholds[r])
            further = np.zeros(len(grid))
            if r + 1 < len(thresholds):  # the same share, seen from the next threshold
                shift = score(n[k] * thresholds[r], n[k], thresholds[r + 1])
                further = np.interp(grid + shift, grid, value[r + 1])
            value[r] = np.where(claimed, worth[r] + further, value[r])
        after = value
    return found


def _claim(count: int, n: float, p: float) -> float:
    # Half a count lower: a count stands for the scores around it.
    return float(score(count - 0.5, n, p)) if count <= n else np.inf
