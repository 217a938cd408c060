"""Stopping rules of the two-class certificate. numpy and scipy only; see `two_class` for what it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from acr_ray.smoothing.rules import GO_ON, TWO_CLASS, TWO_CLASS_RADII, Draws, Judgement, Rule
from acr_ray.smoothing.spending import boundary
from acr_ray.smoothing.two_class import second_count, two_class_p_lower

REACH = 4.0  # thresholds lie within +-REACH on the scale of z = Phi^-1
FINEST, COARSEST = 0.005, 0.02  # spacing of thresholds on that scale
ENOUGH = 3.3  # standard errors that a claim costs; steers giving up only


class TwoClassFixedRule(Rule):
    """n draws, then one bound: `two_class.two_class_p_lower`."""

    name = TWO_CLASS

    def __init__(self, n: int, alpha: float) -> None:
        self.looks, self._alpha = (n,), alpha

    def judge_draws(self, draws: Draws) -> Judgement:
        counts = draws.looks[-1]
        second = second_count(counts, draws.selected)
        top = counts.get(draws.selected, 0)
        return Judgement(True, float(two_class_p_lower(top, second, self.looks[0], self._alpha)), "n")


class TwoClassRadiiRule(Rule):
    """Answers certified accuracy on a grid of radii, and stops an image once its answer is decided.

    On a fine grid of thresholds a each hypothesis "p <= a" has its exact `spending.boundary` at level alpha/2. The
    hypotheses are nested, so the largest a up to which all are rejected, at any look so far, is a lower bound on p that
    is ever wrong with probability at most alpha/2 (as in `stopping.RadiiRule`). Applied to the selected class it bounds
    p_A from below; applied to "any class but c" it bounds p_c from above. By the union bound both hold with probability
    1 - alpha, at all looks at once; over the classes c nothing is paid (intersection-union, see `two_class`). The claim
    is the largest radius r of the grid with ``z(lower of p_A) - z(upper of p_c) >= 2 r / sigma`` for every c. So alpha
    is not split between radii, and nothing depends on when or why an image stops.

    An image stops once the largest radius is claimed, or once the next one is not worth its draws: the chance that all
    n draws reach it (normal approximation from selection and estimation draws together) against what is left to draw.

    Args:
        claims: the p_lower of each radius, increasing, in (1/2, 1); see `stopping.claim_at`.
        looks: see `Rule`.
        alpha: error probability of an image's claim.
        worth: what a claim is worth, in units of n.
        power, kept: alpha spent by draw m is ``alpha/2 (1 - kept) (m / n)**power``, the rest at n.
    """

    name = TWO_CLASS_RADII

    def __init__(
        self,
        claims: Sequence[float],
        looks: Sequence[int],
        alpha: float,
        worth: float = 6.0,
        power: float = 0.4,
        kept: float = 0.4,
    ) -> None:
        self.looks, self._claims, self._worth = tuple(looks), np.array([0.0, *claims]), worth
        self._gaps = 2 * special.ndtri(np.array(claims))
        self._z, self._boundaries = _thresholds(self.looks, alpha, power, kept)

    def lower_z(self, paths: ArrayLike) -> NDArray[np.float64]:
        """Return the lower bound on ``z(p)`` that holds at each look, ``-inf`` if there is none.

        Args:
            paths: counts up to each look, integers, ``(..., K)`` with K at most the number of looks.

        Returns:
            float64, the same shape, non-decreasing along the last axis.
        """
        paths = np.asarray(paths)
        reached = np.empty(paths.shape, dtype=np.int64)
        for look in range(paths.shape[-1]):
            reached[..., look] = np.searchsorted(self._boundaries[look], paths[..., look], side="right")
        z = np.concatenate([[-np.inf], self._z])
        return z[np.maximum.accumulate(reached, axis=-1)]

    def claimed(self, top: ArrayLike, others: ArrayLike) -> NDArray[np.int64]:
        """Return how many radii are claimed at each look, whoever stops there; non-decreasing along the last axis.

        Args:
            top: counts of the selected class up to each look, ``(..., K)``.
            others: those of all other classes, ``(..., C, K)``; C at least 1.
        """
        others = np.asarray(others)
        n = np.array(self.looks[: others.shape[-1]])
        gap = self.lower_z(top) + self.lower_z(n - others).min(axis=-2)
        # The grid of thresholds is symmetric about 0; what rounding leaves of a sum must not decide.
        return np.searchsorted(self._gaps, gap + 1e-12, side="right")

    def claim_of_draws(self, draws: Draws) -> float:
        return float(self._claims[self._claimed_of(draws)]) if draws.looks else 0.0

    def _claimed_of(self, draws: Draws) -> int:
        """How many radii are claimed at the last of the looks seen."""
        top = draws.path(draws.selected)
        others = np.array([draws.path(label) for label in sorted(_others(draws))] or [[0] * len(top)])
        return int(self.claimed(np.array(top), others)[-1])

    def judge_draws(self, draws: Draws) -> Judgement:
        labels, top, claimed = _others(draws), draws.path(draws.selected), self._claimed_of(draws)
        p_lower = float(self._claims[claimed])
        if claimed == len(self._gaps):
            return Judgement(True, p_lower, "decided")
        if len(top) == len(self.looks):
            return Judgement(True, p_lower, "n")
        second = max((draws.select.get(label, 0) + draws.path(label)[-1] for label in labels), default=0)
        if self._hopeless(
            draws.select.get(draws.selected, 0) + top[-1], second, draws.n0, self.looks[len(top) - 1], claimed
        ):
            return Judgement(True, p_lower, "futile")
        return GO_ON

    def _hopeless(self, top: int, second: int, n0: int, drawn: int, claimed: int) -> bool:
        """Return whether the next radius is not worth the draws that are left."""
        n, seen = self.looks[-1], n0 + drawn
        p = np.clip(np.array([top + 0.5, second + 0.5]) / (seen + 1), 1e-9, 1 - 1e-9)
        z = special.ndtri(p)
        wide = np.sqrt(p * (1 - p)) * np.sqrt(2 * np.pi) * np.exp(z**2 / 2)  # a standard error of z is this / sqrt(n)
        shared = 2 * np.sqrt(p.prod() / (1 - p).prod()) * wide.prod()  # the two counts' negative covariance
        error = np.sqrt((wide**2).sum() + shared)
        needed = self._gaps[claimed] + ENOUGH * wide.sum() / np.sqrt(n)
        spread = error * np.sqrt(1 / seen - 1 / (n + n0))
        chance = special.ndtr((z[0] - z[1] - needed) / spread)
        return chance * self._worth * wide.sum() / 2.5 * n < n - drawn


def _others(draws: Draws) -> set[int]:
    """All classes that ever came, but the selected one."""
    return {label for counts in (*draws.looks, draws.select) for label in counts} - {draws.selected}


@lru_cache(maxsize=8)
def _thresholds(
    looks: tuple[int, ...], alpha: float, power: float, kept: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Thresholds on the scale of z, ascending, (A,); and the counts that reject each at each look, (K, A).

    They take seconds, and nothing of them depends on the radii: all rules of one n and alpha share them.
    """
    n = looks[-1]
    step = min(max(0.8 / np.sqrt(n), FINEST), COARSEST)
    z = step * np.arange(-round(REACH / step), round(REACH / step) + 1)
    part = np.array(looks) / n
    spent = alpha / 2 * np.where(part == 1, 1.0, (1 - kept) * part**power)
    found = np.stack([boundary(float(p), looks, spent) for p in special.ndtr(z)], axis=1)
    # A count that rejects a threshold rejects those below it, except by the unevenness of whole counts.
    return z, np.maximum.accumulate(found, axis=1)
