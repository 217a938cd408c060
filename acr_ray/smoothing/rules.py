"""What a stopping rule is: what it sees of an image, and what it says. numpy only.

A rule sees how many of the first ``looks[i]`` estimation draws gave each class, for each look so far, and says whether
to go on. Selection draws are independent of estimation draws and may steer a rule (what to try for, where to give up,
where to spend alpha); they never enter a bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Names of bounds, with a version where their definition may change; the certificates' column ``bound``.
PLAIN, RANDOMIZED = "clopper-pearson", "clopper-pearson-randomized"
RADII, WIDTH = "sequential-radii/1", "clopper-pearson-split/1"
TWO_CLASS, TWO_CLASS_RADII = "two-class/1", "sequential-radii-two-class/1"
DISTRIBUTION = "clopper-pearson-distribution/1"
#: The kinds of certificates. A radius of one kind is never compared with one of the other unasked.
ONE_CLASS_KIND, TWO_CLASS_KIND = "one-class", "two-class"


def certificate_kind(bound: str) -> str:
    """Return the kind of a certificate by the name of its bound."""
    return TWO_CLASS_KIND if bound in (TWO_CLASS, TWO_CLASS_RADII) else ONE_CLASS_KIND


@dataclass(frozen=True)
class Judgement:
    """What a rule says at a look.

    Attributes:
        stop: no more draws for this image.
        p_lower: lower bound on p_A of the selected class, > 1/2, wrong with probability at most alpha; 0.0 where
            nothing is claimed, and while going on. Of a two-class rule the p_A that a one-class certificate of the
            radius claimed needs.
        reason: "" while going on, else why it stops: "n" (all draws), "decided" (all that is asked for is certified),
            "futile" (more draws would hardly certify more), "width" (nor raise the radius by the tolerance), "band"
            (the distribution of p_A over all images is known).
    """

    stop: bool
    p_lower: float = 0.0
    reason: str = ""


GO_ON = Judgement(False)


@dataclass(frozen=True)
class Draws:
    """What a rule may see of an image.

    Attributes:
        selected: the class that the selection draws chose.
        select: selection draws by class; classes that never came are absent, here and below.
        looks: estimation draws by class up to each look so far (cumulative), at least one look.
        coin: uniform in [0, 1) for a randomised bound, see `acr_ray.smoothing.stopping.coin`; 1.0: not randomised.
    """

    selected: int
    select: Mapping[int, int]
    looks: Sequence[Mapping[int, int]]
    coin: float = 1.0

    @property
    def n0(self) -> int:
        return sum(self.select.values())

    def path(self, label: int) -> list[int]:
        """Return how many draws gave a class up to each look."""
        return [counts.get(label, 0) for counts in self.looks]


class Rule:
    """A stopping rule.

    Attributes:
        name: of its bound, with a version; the certificates' column ``bound``.
        looks: cumulative estimation draws at which it looks, increasing; the last is n.
    """

    name: str
    looks: tuple[int, ...]

    def judge_draws(self, draws: Draws) -> Judgement:
        """Return the judgement at the last of the looks seen. One-class rules need the selected class's counts only."""
        select = draws.select.get(draws.selected, 0)
        return self.judge(draws.path(draws.selected), draws.n0, select, draws.coin)

    def judge(self, path: Sequence[int], n0: int, count0: int, coin: float = 1.0) -> Judgement:
        """The judgement at look ``len(path) - 1``.

        Args:
            path: ``path[i]`` of the first ``looks[i]`` estimation draws gave the selected class; at least one look.
            n0, count0: selection draws, and how many of them gave the selected class.
            coin: uniform in [0, 1) for a randomised bound, see `coin`; others ignore it. 1.0: not randomised.
        """
        raise NotImplementedError

    def judge_all(self, paths: ArrayLike, n0: int, counts0: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """The same for many images at all looks, with a coin of 1.0.

        Args:
            paths: whole paths, (M, K).
            n0, counts0: selection draws, and the counts in them, (M,).

        Returns:
            where the rule would stop, bool (M, K), True at the last look; and what may be claimed after each look
            whoever stops there, float64 (M, K), non-decreasing along K.
        """
        raise NotImplementedError

    def claim_so_far(self, path: Sequence[int], n0: int, count0: int) -> float:
        """What may be claimed at the last look that was reached, if somebody else stops there: a budget, a deadline.

        Args:
            path: counts at the looks so far, at most K.
            n0, count0: selection draws, and the count in them.

        Returns:
            a lower bound of p_A; 0.0 before the first look.
        """
        if not path:
            return 0.0
        # What comes after a look changes nothing of what may be claimed at it.
        whole = [*path, *[path[-1]] * (len(self.looks) - len(path))]
        _, claims = self.judge_all([whole], n0, [count0])
        return float(claims[0, len(path) - 1])

    def claim_of_draws(self, draws: Draws) -> float:
        """Return the same of an image's draws; of the rules of `--stopping radii` alone. `Draws.looks` may be empty."""
        return self.claim_so_far(draws.path(draws.selected), draws.n0, draws.select.get(draws.selected, 0))


def geometric_looks(n: int, first: int, ratio: float) -> tuple[int, ...]:
    """Looks from ``first`` to ``n``, each about ``ratio`` times the one before."""
    found, at = [], float(min(first, n))
    while at * math.sqrt(ratio) < n:
        found.append(round(at))
        at = max(at * ratio, round(at) + 1.0)
    return (*found, n)
