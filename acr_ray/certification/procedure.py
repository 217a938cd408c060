"""What an image needs next, and how it ends. Pure functions of counts: no torch, no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from acr_ray.formats.states import Outcome
from acr_ray.settings import CertifySettings
from acr_ray.smoothing.distribution_rule import MOST_BLOCK
from acr_ray.smoothing.plan import Phase, staged
from acr_ray.smoothing.rules import Draws
from acr_ray.smoothing.stopping import coin, rule_for

Counts = dict[int, int]  # draws by class; classes that never came are absent


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of an image's procedure.

    Attributes:
        outcome: how it ended; `Outcome.STOPPED_WRONG` only with ``stop_when_wrong``.
        predicted: the class selected by the n0 draws.
        p_lower: lower bound on its probability, 0 if nothing is claimed; of a two-class certificate what
            `acr_ray.smoothing.two_class` makes of the counts, so that the radius follows from it in the same way.
        counts: of the draws behind the bound; the selection draws' if it stopped before any other.
        n: how many draws those are.
        reason: why it ended.
    """

    outcome: Outcome
    predicted: int
    p_lower: float
    counts: Counts
    n: int
    reason: str


class CertificationProcedure:
    """The phases that an image goes through one by one: selection, then the looks of the stopping rule.

    The next phase is drawn only once the one before is whole, so where an image ends depends on its counts alone,
    not on who drew what when.
    """

    def __init__(self, settings: CertifySettings) -> None:
        self._settings, self.rule = settings, rule_for(settings)
        self.stops_when_wrong = settings.stop_when_wrong
        self.stops_together = settings.stopping == "distribution"
        block = min(settings.block, MOST_BLOCK) if self.stops_together else settings.block
        self.phases: tuple[Phase, ...] = staged(settings.n0, self.rule.looks, block)

    def verdict(self, phase_counts: Sequence[Counts], image: str, label: int) -> Verdict | None:
        """Return what the whole phases so far say; None if the next is needed.

        Args:
            phase_counts: of the phases that are whole, in their order.
            image: stable name.
            label: true class.
        """
        if not phase_counts:
            return None
        select, looks = phase_counts[0], phase_counts[1:]
        # As `decide.select_class`: the lowest number among equals.
        predicted = min(select, key=lambda c: (-select[c], c))
        if self.stops_when_wrong and predicted != label:
            return Verdict(Outcome.STOPPED_WRONG, predicted, 0.0, dict(select), self._settings.n0, "wrong")
        if not looks:
            return None
        total = added(looks)
        cumulative = list(accumulate(looks, lambda before, counts: added([before, counts])))
        chance = coin(self._settings.seed, image) if self._settings.bound == "randomized" else 1.0
        judged = self.rule.judge_draws(Draws(predicted, select, cumulative, chance))
        if not judged.stop and len(looks) < len(self.rule.looks):
            return None
        outcome = Outcome.CERTIFIED if judged.p_lower > 0.5 else Outcome.ABSTAINED
        return Verdict(outcome, predicted, judged.p_lower, total, sum(total.values()), judged.reason or "n")


def sparse(counts: NDArray[np.int64]) -> Counts:
    """Return counts by class, ``(num_classes,)``, without the classes that never came."""
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def added(parts: Sequence[Counts]) -> Counts:
    """Return the sum of sparse counts."""
    total: Counts = {}
    for part in parts:
        for label, count in part.items():
            total[label] = total.get(label, 0) + count
    return total
