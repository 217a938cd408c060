"""Stopping rules: how many draws an image needs, and a lower bound that holds whenever they end.

numpy and scipy only. A rule sees how many of the first ``looks[i]`` estimation draws gave the selected class, for
each look so far, and says whether to go on. Selection draws are independent of estimation draws and may steer a rule
(what to try for, where to give up, where to spend alpha); they never enter a bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from acr_ray.settings.certify import CertifySettings
from acr_ray.settings.seeds import derive_seed
from acr_ray.smoothing.bounds import lower_bound, radius, upper_bound
from acr_ray.smoothing.futility import count_at, give_up_scores
from acr_ray.smoothing.spending import boundary

PLAIN, RANDOMIZED = "clopper-pearson", "clopper-pearson-randomized"
RADII, WIDTH = "sequential-radii/1", "clopper-pearson-split/1"


@dataclass(frozen=True)
class Judgement:
    """What a rule says at a look.

    Attributes:
        stop: no more draws for this image.
        p_lower: lower bound on p_A of the selected class, wrong with probability at most alpha whenever the rule or
            anybody else stops; 0.0 while going on and where nothing is claimed.
        reason: "" while going on, else why it stops: "n" (all draws), "decided" (all that is asked for is certified),
            "futile" (more draws would hardly certify more), "width" (nor raise the radius enough).
    """

    stop: bool
    p_lower: float = 0.0
    reason: str = ""


GO_ON = Judgement(False)


class Rule:
    """A stopping rule.

    Attributes:
        name: of its bound, versioned; the certificates' column ``bound``.
        looks: cumulative estimation draws at which it looks, increasing; the last is n.
    """

    name: str
    looks: tuple[int, ...]

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        """The judgement at look ``len(path) - 1``.

        Args:
            path: ``path[i]`` of the first ``looks[i]`` estimation draws gave the selected class; at least one look.
            n0, count0: selection draws, and how many of them gave the selected class.
            coin: uniform in [0, 1) where the bound is randomised; see `coin`. 1.0: no randomisation.
        """
        raise NotImplementedError


def rule_for(settings: CertifySettings) -> Rule:
    """The rule of a run."""
    if settings.stopping == "radii":
        return _radii_rule(settings.radii, settings.sigma, settings.n, settings.alpha, settings.n0)
    if settings.stopping == "width":
        return _width_rule(settings.sigma, settings.n, settings.alpha, settings.tolerance)
    return FixedRule(settings.n, settings.alpha, settings.bound == "randomized")


def coin(seed: int, image: str) -> float:
    """The uniform number in [0, 1) of an image's randomised bound: of the run's seed and the image alone."""
    return derive_seed(seed, "bound", image) / 2.0**63


class FixedRule(Rule):
    """Cohen et al.'s: n draws, then one bound."""

    def __init__(self, n: int, alpha: float, randomized: bool = False) -> None:
        self.name, self.looks = (RANDOMIZED if randomized else PLAIN), (n,)
        self._alpha, self._randomized = alpha, randomized

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        bound = lru_randomized if self._randomized else lru_plain
        given = (int(path[-1]), self.looks[0], self._alpha)
        p_lower = bound(*given, coin) if self._randomized else bound(*given)
        return Judgement(True, p_lower if p_lower > 0.5 else 0.0, "n")


def randomized_lower_bound(count: int, n: int, alpha: float, coin: float) -> float:
    """Randomised Clopper-Pearson lower bound (Stevens 1950, Biometrika 37).

    The p with ``P[X > count] + coin * P[X = count] = alpha``, X ~ Binomial(n, p). The left side at the true p is
    uniform when the coin is, so the bound exceeds the true p with probability exactly alpha; it lies between the
    Clopper-Pearson bounds of ``count`` and ``count + 1``. At ``count == n`` it is Clopper-Pearson's own (a small coin
    would claim p = 1), which is lower and so holds too.

    Args:
        count, n: successes in [0, n], draws >= 1.
        alpha: in (0, 1).
        coin: in [0, 1]; 1 gives Clopper-Pearson.
    """
    least = float(lower_bound(count, n, alpha))
    if count in (0, n) or coin >= 1.0:
        return least

    def excess(p: float) -> float:
        more = special.betainc(count + 1, n - count, p)
        return float(more + coin * (special.betainc(count, n - count + 1, p) - more)) - alpha

    most = float(lower_bound(count + 1, n, alpha))
    if excess(least) >= 0.0:
        return least
    # The root's own tolerance is taken off, so that the bound never errs upwards.
    return most if excess(most) <= 0.0 else max(least, float(optimize.brentq(excess, least, most, xtol=1e-15)) - 1e-14)


@lru_cache(maxsize=1 << 16)
def lru_plain(count: int, n: int, alpha: float) -> float:
    return float(lower_bound(count, n, alpha))


lru_randomized = randomized_lower_bound


def geometric_looks(n: int, first: int, ratio: float) -> tuple[int, ...]:
    """Looks from ``first`` to ``n``, each about ``ratio`` times the one before."""
    found, at = [], float(min(first, n))
    while at * math.sqrt(ratio) < n:
        found.append(round(at))
        at = max(at * ratio, round(at) + 1.0)
    return (*found, n)


def claim_at(r: float, sigma: float) -> float:
    """The smallest float p_lower whose radius, as computed, is at least r and above 0; 1.0 where there is none."""
    p = float(special.ndtr(r / sigma))
    p = max(p - 1e-15, math.nextafter(0.5, 1.0))
    while p < 1.0 and not (float(radius(p, sigma)) >= r and float(radius(p, sigma)) > 0):
        p = math.nextafter(p, 1.0)
    return p


class RadiiRule(Rule):
    """Answers certified accuracy on a grid of radii, and stops an image once its answer is decided.

    To each radius r belongs the hypothesis "p_A <= Phi(r / sigma)", rejected as soon as the count reaches
    `spending.boundary` for it at level alpha. The claim is the largest radius up to which all hypotheses are
    rejected. **It is wrong with probability at most alpha:** the hypotheses are nested, so those that are true are
    the ones from some radius r* up; a wrong claim is a radius >= r* and needs the rejection of r*'s hypothesis, which
    is true and is rejected at any look with probability at most alpha. Nothing here depends on when or why an
    image stops.

    An image stops once the largest radius is claimed, or once the next one is not worth its draws
    (`futility.give_up_scores`, which also uses the selection draws).
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        looks: Sequence[int],
        alpha: float,
        n0: int,
        *,
        worth: float,
        power: float,
        kept: float,
    ) -> None:
        self.name, self.looks, self.thresholds = RADII, tuple(looks), tuple(thresholds)
        t = np.array(self.looks) / self.looks[-1]
        spent = alpha * ((1 - kept) * t**power + kept * (t == 1))
        self.boundaries = np.stack([boundary(p, self.looks, spent) for p in self.thresholds], axis=1)
        self._scores = give_up_scores(self.thresholds, self.looks, self.boundaries, worth * self.looks[-1])
        self._pooled: dict[int, NDArray[np.float64]] = {n0: self._give_up(n0)}

    def _give_up(self, n0: int) -> NDArray[np.float64]:
        """Pooled counts (selection and estimation) below which a threshold is given up, (K, R)."""
        n, seen = np.array(self.looks, dtype=np.float64), np.array(self.looks, dtype=np.float64) + n0
        found = np.empty_like(self._scores)
        for r, p in enumerate(self.thresholds):
            finite = np.clip(self._scores[:, r], -30, 30)
            scores = np.interp(np.log(seen), np.log(n), finite)
            found[:, r] = count_at(scores, seen, p)
        found[-1] = np.inf
        return found

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        looks = len(path)
        reached = (np.asarray(path)[:, None] >= self.boundaries[:looks]).any(axis=0)
        claimed = len(reached) if reached.all() else int(np.argmin(reached))
        p_lower = self.thresholds[claimed - 1] if claimed else 0.0
        if claimed == len(self.thresholds):
            return Judgement(True, p_lower, "decided")
        if looks == len(self.looks):
            return Judgement(True, p_lower, "n")
        if n0 not in self._pooled:
            self._pooled[n0] = self._give_up(n0)
        if path[-1] + count0 < self._pooled[n0][looks - 1, claimed]:
            return Judgement(True, p_lower, "futile")
        return GO_ON


@lru_cache(maxsize=8)
def _radii_rule(radii: tuple[float, ...], sigma: float, n: int, alpha: float, n0: int) -> RadiiRule:
    claims = [claim_at(r, sigma) for r in radii]
    ceiling = float(lower_bound(n, n, alpha))
    reachable = [p for p in claims if p < ceiling] or claims[:1]
    return RadiiRule(reachable, geometric_looks(n, 40, 1.066), alpha, n0, worth=1.0, power=0.5, kept=0.0)


class WidthRule(Rule):
    """Stops where more draws could hardly raise the radius by more than a tolerance.

    At each look the Clopper-Pearson bound at its share of alpha; the shares sum to alpha, so by the union bound the
    largest bound so far is wrong at any look with probability at most alpha.
    """

    def __init__(self, looks: Sequence[int], alpha: float, sigma: float, tolerance: float, kept: float) -> None:
        self.name, self.looks = WIDTH, tuple(looks)
        self._sigma, self._tolerance, self._alpha = sigma, tolerance, alpha
        early = len(self.looks) - 1
        self.shares = np.array([alpha * (1 - kept) / early] * early + [alpha * kept]) if early else np.array([alpha])

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        looks, n = len(path), self.looks[-1]
        held = max(lru_plain(int(c), m, float(a)) for c, m, a in zip(path, self.looks, self.shares, strict=False))
        p_lower = held if held > 0.5 else 0.0
        if looks == len(self.looks):
            return Judgement(True, p_lower, "n")
        share = path[-1] / self.looks[looks - 1]
        last = lru_plain(int(share * n), n, float(self.shares[-1]))
        gain = float(radius(last, self._sigma) - radius(held, self._sigma))
        if held > 0.5 and gain <= self._tolerance:
            return Judgement(True, p_lower, "width")
        if held <= 0.5 and float(upper_bound(path[-1], self.looks[looks - 1], 0.01)) < 0.5:
            return Judgement(True, 0.0, "futile")
        return GO_ON


@lru_cache(maxsize=8)
def _width_rule(sigma: float, n: int, alpha: float, tolerance: float) -> WidthRule:
    return WidthRule(geometric_looks(n, 50, 1.35), alpha, sigma, tolerance, kept=0.85)
