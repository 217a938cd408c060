"""Stopping rules: how many draws an image needs, and a lower bound that holds whenever they end. numpy and scipy only.

What a rule is says `acr_ray.smoothing.rules`; the two-class ones are in `acr_ray.smoothing.two_class_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from acr_ray.settings.certify import CertifySettings
from acr_ray.settings.seeds import derive_seed
from acr_ray.smoothing import width
from acr_ray.smoothing.bounds import lower_bound, radius, randomized_lower_bound
from acr_ray.smoothing.distribution_rule import MOST_BLOCK, DistributionRule
from acr_ray.smoothing.futility import count_at, give_up_scores
from acr_ray.smoothing.rules import GO_ON, PLAIN, RADII, RANDOMIZED, WIDTH, Judgement, Rule, geometric_looks
from acr_ray.smoothing.spending import boundary
from acr_ray.smoothing.two_class_rules import TwoClassFixedRule, TwoClassRadiiRule

MOST_LOOKS = 110


def rule_for(settings: CertifySettings) -> Rule:
    """The rule of a run."""
    if settings.certificate == "two-class":
        if settings.stopping == "radii":
            return _two_class_radii_rule(settings.radii, settings.sigma, settings.n, settings.alpha)
        return TwoClassFixedRule(settings.n, settings.alpha)
    if settings.stopping == "radii":
        return _radii_rule(settings.radii, settings.sigma, settings.n, settings.alpha)
    if settings.stopping == "distribution":
        block = min(settings.block, MOST_BLOCK)
        return DistributionRule(settings.n, settings.n0, block, settings.alpha, settings.band, settings.band_upto)
    if settings.stopping == "width":
        return _width_rule(settings.n, settings.alpha, settings.sigma, settings.radius_tolerance)
    return FixedRule(settings.n, settings.alpha, settings.bound == "randomized")


def coin(seed: int, image: str) -> float:
    """The uniform number in [0, 1) of an image's randomised bound: a function of the run's seed and its name."""
    return (derive_seed(seed, "bound", image) >> 10) / 2.0**53


class FixedRule(Rule):
    """Cohen et al.'s: n draws, then one bound."""

    def __init__(self, n: int, alpha: float, randomized: bool = False) -> None:
        self.name, self.looks = (RANDOMIZED if randomized else PLAIN), (n,)
        self._alpha, self._randomized = alpha, randomized

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        p = randomized_lower_bound(int(path[-1]), self.looks[0], self._alpha, coin if self._randomized else 1.0)
        return Judgement(True, p if p > 0.5 else 0.0, "n")

    def judge_all(self, paths: ArrayLike, n0: int, counts0: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        p = lower_bound(paths, self.looks[0], self._alpha)
        return np.ones(p.shape, dtype=bool), np.where(p > 0.5, p, 0.0)


class RadiiRule(Rule):
    """Answers certified accuracy on a grid of radii, and stops an image once its answer is decided.

    To each radius r belongs the hypothesis "p_A < Phi(r / sigma)", rejected as soon as the count reaches the exact
    `spending.boundary` for it at level alpha. The claim is the largest radius up to which all hypotheses are
    rejected. **It is wrong with probability at most alpha:** the hypotheses are nested, so those that are true are
    the ones from some radius r* up; a wrong claim is of a radius >= r*, so it needs r*'s hypothesis rejected, which
    is true and rejected at any look at all with probability at most alpha. So alpha is not split between radii, and
    nothing depends on when or why an image stops.

    An image stops once the largest radius is claimed, or once the next one is not worth its draws
    (`futility.give_up_scores`, applied to selection and estimation draws together).

    Args:
        thresholds: values of p_A to claim, increasing, in (1/2, 1); those of the radii, see `claim_at`.
        looks: see `Rule`.
        alpha: error probability of an image's claim.
        worth: what a claim is worth, in units of n; see `_worth`.
        power, kept: alpha spent by draw m is ``alpha * (1 - k) * (m / n)**power``, the rest at n; k rises from ``kept``
            to 1 as a threshold nears what n agreeing draws can just reject. All three, and the looks, were chosen by
            measured efficiency (`jobs.benchmarks.simulate`).
    """

    name = RADII

    def __init__(
        self,
        thresholds: Sequence[float],
        looks: Sequence[int],
        alpha: float,
        worth: float = 1.15,
        power: float = 0.4,
        kept: float = 0.1,
    ) -> None:
        self.looks, self.thresholds = tuple(looks), tuple(thresholds)
        part = np.array(self.looks) / self.looks[-1]
        found = np.empty((len(self.looks), len(self.thresholds)), dtype=np.int64)
        for r, p in enumerate(self.thresholds):
            soonest = min(
                math.log(alpha) / math.log(p) / self.looks[-1], 1.0
            )  # part of n: agreeing draws that reject p
            early = (1 - kept) * (1 - math.sqrt(soonest))
            found[:, r] = boundary(p, self.looks, alpha * np.where(part == 1, 1.0, early * part**power))
        # A count that rejects a threshold rejects those below it, except by the unevenness of whole counts.
        self.boundaries = np.maximum.accumulate(found, axis=1)
        worths = worth * self.looks[-1] * _worth(self.thresholds)
        self._scores = give_up_scores(self.thresholds, self.looks, self.boundaries, worths)
        self._claims = np.array([0.0, *self.thresholds])
        self._pooled: dict[int, NDArray[np.float64]] = {}

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        looks = len(path)
        reached = (np.asarray(path)[:, None] >= self.boundaries[:looks]).any(axis=0)
        claimed = int(reached.sum())
        p_lower = float(self._claims[claimed])
        if claimed == len(self.thresholds):
            return Judgement(True, p_lower, "decided")
        if looks == len(self.looks):
            return Judgement(True, p_lower, "n")
        if path[-1] + count0 < self._give_up(n0)[looks - 1, claimed]:
            return Judgement(True, p_lower, "futile")
        return GO_ON

    def judge_all(self, paths: ArrayLike, n0: int, counts0: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        paths = np.asarray(paths)
        claimed = np.zeros(paths.shape, dtype=np.int64)
        for r in range(len(self.thresholds)):  # boundaries rise with the threshold, so what is reached adds up
            claimed += np.logical_or.accumulate(paths >= self.boundaries[:, r], axis=1)
        give_up = np.pad(self._give_up(n0), ((0, 0), (0, 1)), constant_values=np.inf)  # all claimed: nothing left
        stop = paths + np.asarray(counts0)[:, None] < give_up[np.arange(len(self.looks)), claimed]
        return stop, self._claims[claimed]

    def _give_up(self, n0: int) -> NDArray[np.float64]:
        """Counts, selection draws included, below which a threshold is given up, (K, R); ``inf`` at the last look."""
        if n0 not in self._pooled:
            n = np.array(self.looks, dtype=np.float64)
            found = np.empty_like(self._scores)
            for r, p in enumerate(self.thresholds):
                # The score asked for of n0 + m draws is that asked for at a look after as many.
                scores = np.interp(np.log(n + n0), np.log(n), np.clip(self._scores[:, r], -30, 30))
                found[:, r] = count_at(scores, n + n0, p)
            found[-1] = np.inf
            self._pooled[n0] = found
        return self._pooled[n0]


class WidthRule(Rule):
    """Stops where all n draws would hardly raise the radius by more than a tolerance.

    At each look the Clopper-Pearson bound at that look's share of alpha; the claim is the largest so far. The shares
    are fixed before the first estimation draw (`width.alpha_shares`, from the selection draws) and sum to alpha, so
    by the union bound a claim is wrong, at any look at all, with probability at most alpha.

    An image stops where all n draws, should they keep the share seen so far, would with the whole of alpha certify
    a radius at most ``tolerance`` above its own, and where its chance of certifying anything is below
    `width.HOPELESS`.
    """

    name = WIDTH

    def __init__(self, looks: Sequence[int], alpha: float, sigma: float, tolerance: float) -> None:
        self.looks = tuple(looks)
        self._alpha, self._sigma, self._tolerance = alpha, sigma, tolerance
        self._planned = lru_cache(maxsize=1024)(self._plan)
        self._hopeless = lru_cache(maxsize=8)(lambda n0: width.hopeless_counts(self.looks, n0, alpha))

    def _plan(self, n0: int, count0: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        shares = width.alpha_shares(self.looks, n0, count0, self._alpha, self._sigma, self._tolerance)
        return shares, *width.stopping_counts(self.looks, shares, self._alpha, self._sigma, self._tolerance)

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        looks, count = len(path), path[-1]
        shares, some, enough = self._planned(n0, count0)
        if looks == len(self.looks):
            reason = "n"
        elif some[looks - 1] <= count <= enough[looks - 1]:
            reason = "width"
        elif count + count0 < self._hopeless(n0)[looks - 1] and not np.any(np.asarray(path) >= some[:looks]):
            reason = "futile"
        else:
            return GO_ON
        p = float(lower_bound(path, self.looks[:looks], shares[:looks]).max())
        return Judgement(True, p if p > 0.5 else 0.0, reason)

    def judge_all(self, paths: ArrayLike, n0: int, counts0: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        paths, counts0 = np.asarray(paths), np.asarray(counts0)
        distinct, back = np.unique(counts0, return_inverse=True)
        plans = zip(*(self._plan(n0, int(count)) for count in distinct), strict=True)
        shares, some, enough = (np.stack(part)[back] for part in plans)
        p = np.maximum.accumulate(lower_bound(paths, np.array(self.looks), shares), axis=1)
        stop = (paths >= some) & (paths <= enough)
        stop |= (p <= 0.5) & (paths + counts0[:, None] < self._hopeless(n0))
        stop[:, -1] = True
        return stop, np.where(p > 0.5, p, 0.0)


def claim_at(r: float, sigma: float) -> float:
    """The smallest p_lower whose radius, as computed, is at least r and above 0; 1.0 where no float is."""
    p = max(float(special.ndtr(r / sigma)) - 1e-15, math.nextafter(0.5, 1.0))
    while p < 1.0 and not float(radius(p, sigma)) >= max(r, math.ulp(0.0)):
        p = math.nextafter(p, 1.0)
    return p


def _worth(thresholds: Sequence[float]) -> NDArray[np.float64]:
    """What claiming a radius is worth, relative to radius 0: how much wider a radius's uncertainty is there.

    ``sqrt(p (1 - p)) / phi(Phi^-1(p))`` turns a standard error of p_A into one of the radius. Where images are spread
    evenly over radii, as many more of them lie within reach of giving up wrongly.
    """
    p = np.asarray(thresholds)
    wide = np.sqrt(p * (1 - p)) * np.exp(special.ndtri(p) ** 2 / 2)
    return wide / 0.5


@lru_cache(maxsize=8)
def _radii_rule(radii: tuple[float, ...], sigma: float, n: int, alpha: float) -> RadiiRule:
    # What n draws can't claim even if all agree would only cost draws; at least one threshold must remain.
    claims = [p for p in (claim_at(r, sigma) for r in radii) if p <= lower_bound(n, n, alpha)]
    # Looks cost rounds of work; beyond N = 5 000 000 they get sparser rather than more.
    looks = geometric_looks(n, 20, max(1.12, (n / 20) ** (1 / MOST_LOOKS)))
    return RadiiRule(claims or [claim_at(0.0, sigma)], looks, alpha)


@lru_cache(maxsize=8)
def _width_rule(n: int, alpha: float, sigma: float, tolerance: float) -> WidthRule:
    return WidthRule(geometric_looks(n, 100, 1.35), alpha, sigma, tolerance)


@lru_cache(maxsize=8)
def _two_class_radii_rule(radii: tuple[float, ...], sigma: float, n: int, alpha: float) -> TwoClassRadiiRule:
    claims = [p for p in (claim_at(r, sigma) for r in radii) if p <= lower_bound(n, n, alpha / 2)]
    return TwoClassRadiiRule(claims or [claim_at(0.0, sigma)], geometric_looks(n, 50, 1.25), alpha)
