"""What is asked about one image, and how far its answer is. Pure functions of the draws: no thread, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.procedure import sparse
from acr_ray.smoothing.bounds import lower_bound, radius, round_down, upper_bound
from acr_ray.smoothing.decide import select_class
from acr_ray.smoothing.plan import ESTIMATE, SELECT, Phase
from acr_ray.smoothing.rules import Draws, Judgement, Rule, certificate_kind
from acr_ray.smoothing.two_class import second_count

P_A = "p_a"


@dataclass(frozen=True)
class Part:
    """The next draws of a question: a block of a phase."""

    phase: Phase
    number: int


class Question(ABC):
    """An image's question: gives out the parts to draw, takes their classes, and knows when it is answered.

    Parts come back in the order in which they were given out.

    Args:
        classes: of the model.
        phases: drawn one after the other.

    Attributes:
        reason: why no more draws are needed; "" while they are.
        drawn: draws that have come back, surplus included.
    """

    def __init__(self, classes: int, *phases: Phase) -> None:
        self._classes, self.reason, self.drawn = classes, "", 0
        self._phases, self._next = deque(phases), 0
        self._given: deque[Part] = deque()

    @property
    def parts_left(self) -> bool:
        """Whether there is something left to draw that was not given out."""
        return bool(self._phases) and not self.reason

    def next_part(self) -> Part:
        """Give out the next part. Only if `parts_left`."""
        part = Part(self._phases[0], self._next)
        self._next += 1
        if self._next == part.phase.blocks:
            self._phases.popleft()
            self._next = 0
        self._given.append(part)
        return part

    def take(self, classes: NDArray[np.int64]) -> None:
        """Take the classes of the part that was given out first and has not come back, ``(block,)``."""
        part = self._given.popleft()
        self.drawn += len(classes)
        if not self.reason:
            self._take(part, classes[: part.phase.counted(part.number)])

    @abstractmethod
    def _take(self, part: Part, classes: NDArray[np.int64]) -> None: ...

    @abstractmethod
    def answer(self, reason: str) -> dict:
        """Return what is known, JSON-like.

        Args:
            reason: why nothing more is drawn, if the question is not answered: ``deadline``, ``max_draws``.
        """


class CertifyQuestion(Question):
    """A class, and a radius around the image within which the smoothed classifier gives it.

    Draws come chunk by chunk; the rule looks at its own looks, wherever they lie in a chunk, and ends at the first at
    which it has decided. Where the budget ends before that, the answer is what the rule allows to be claimed at the
    last look reached: its claims hold at all looks at once, so it does not matter who stopped, or why.

    Args:
        classes: of the model.
        rule: a one-class rule whose claims hold whenever it is stopped.
        n0: selection draws.
        most: estimation draws that the client pays for, at most the rule's n.
        chunk: draws of one seed.
        sigma: of the rule.

    Attributes:
        radius: proved by the answer, not rounded.
    """

    def __init__(self, classes: int, rule: Rule, n0: int, most: int, chunk: int, sigma: float) -> None:
        looks = [look for look in rule.looks if look <= most]
        n = looks[-1] if looks else 0
        estimate = [Phase(ESTIMATE, n, chunk)] if looks else []
        super().__init__(classes, Phase(SELECT, n0, chunk), *estimate)
        self._rule, self._n0, self._sigma, self._looks = rule, n0, sigma, looks
        self._select, self._selected = np.zeros(classes, dtype=np.int64), -1
        self._seen, self._hits, self._p_lower, self.radius = 0, 0, 0.0, 0.0
        self._path: list[int] = []

    def _take(self, part: Part, classes: NDArray[np.int64]) -> None:
        if part.phase.name == SELECT:
            self._select += np.bincount(classes, minlength=self._classes)
            if part.number == part.phase.blocks - 1:
                self._selected = select_class(self._select)
                self._end_without_looks()
            return
        hits = np.cumsum(classes == self._selected)
        end = self._seen + len(classes)
        while len(self._path) < len(self._looks) and (look := self._looks[len(self._path)]) <= end:
            self._path.append(self._hits + int(hits[look - self._seen - 1]))
            judged = self._judge(classes[: look - self._seen])
            if judged.stop:
                self.reason, self._p_lower = judged.reason, judged.p_lower
                return
        self._note(classes)
        self._seen = end
        self._hits += int(hits[-1])
        self._end_without_looks()

    def _end_without_looks(self) -> None:
        """End where the client's budget has no look that is not behind."""
        if len(self._path) == len(self._looks):
            self.reason, self._p_lower = "max_draws", self._claim()

    def _judge(self, classes: NDArray[np.int64]) -> Judgement:
        """The rule's judgement at the look just reached; ``classes`` of the part's draws up to there."""
        return self._rule.judge(self._path, self._n0, int(self._select[self._selected]))

    def _note(self, classes: NDArray[np.int64]) -> None:
        """Take note of a part whose looks are all judged; one-class rules know all they need."""

    def _claim(self) -> float:
        """What may be claimed at the last look reached."""
        return self._rule.claim_so_far(self._path, self._n0, int(self._select[self._selected]))

    def answer(self, reason: str) -> dict:
        p_lower = self._p_lower if self.reason else self._claim()
        self.radius = float(radius(p_lower, self._sigma)) if p_lower > 0.5 else 0.0
        return {
            "class": self._selected if p_lower > 0.5 else None,
            "selected": self._selected if self._selected >= 0 else None,
            "abstained": p_lower <= 0.5,
            "radius": float(round_down(self.radius, 6)),
            "p_lower": float(round_down(p_lower, 9)),
            "n": self._looks[len(self._path) - 1] if self._path else 0,
            "n0": int(self._select.sum()),
            "count": self._path[-1] if self._path else 0,
            "bound": self._rule.name,
            "certificate": certificate_kind(self._rule.name),
            "sigma": self._sigma,
            "reason": self.reason or reason,
        }


class TwoClassQuestion(CertifyQuestion):
    """The same with a two-class rule, which sees the draws of all classes.

    Its ``p_lower`` is the p_A that a one-class certificate of the same radius needs.
    """

    def __init__(self, classes: int, rule: Rule, n0: int, most: int, chunk: int, sigma: float) -> None:
        super().__init__(classes, rule, n0, most, chunk, sigma)
        self._counts = np.zeros(classes, dtype=np.int64)  # of parts whose looks are all judged
        self._at_looks: list[dict[int, int]] = []

    def _judge(self, classes: NDArray[np.int64]) -> Judgement:
        self._at_looks.append(sparse(self._counts + np.bincount(classes, minlength=self._classes)))
        return self._rule.judge_draws(self._draws())

    def _note(self, classes: NDArray[np.int64]) -> None:
        self._counts += np.bincount(classes, minlength=self._classes)

    def _claim(self) -> float:
        return self._rule.claim_of_draws(self._draws())

    def _draws(self) -> Draws:
        return Draws(self._selected, sparse(self._select), self._at_looks)

    def answer(self, reason: str) -> dict:
        second = second_count(self._at_looks[-1], self._selected) if self._at_looks else 0
        return super().answer(reason) | {"count_second": second}


class PAQuestion(Question):
    """The share of noise draws that get one class, and where p_A of it lies with probability 1 - alpha.

    The number of draws is the client's, or what a deadline leaves of it; no count decides when it ends, so
    Clopper-Pearson's bounds hold.

    Args:
        classes: of the model.
        label: the class.
        draws, chunk, sigma: as of `CertifyQuestion`.
        alpha: of the interval.
    """

    def __init__(self, classes: int, label: int, draws: int, chunk: int, sigma: float, alpha: float) -> None:
        super().__init__(classes, Phase(P_A, draws, chunk))
        self._label, self._draws, self._sigma, self._alpha = label, draws, sigma, alpha
        self._counts = np.zeros(classes, dtype=np.int64)

    def _take(self, part: Part, classes: NDArray[np.int64]) -> None:
        self._counts += np.bincount(classes, minlength=self._classes)
        if self._counts.sum() == self._draws:
            self.reason = "n"

    def answer(self, reason: str) -> dict:
        n, count = int(self._counts.sum()), int(self._counts[self._label])
        low, high = (
            (0.0, 1.0)
            if n == 0
            else (
                float(lower_bound(count, n, self._alpha / 2)),
                float(upper_bound(count, n, self._alpha / 2)),
            )
        )
        return {
            "label": self._label,
            "p_a": count / n if n else None,
            "p_a_low": float(round_down(low, 9)),
            "p_a_high": min(1.0, float(round_down(high, 9)) + 1e-9) if n else 1.0,
            "count": count,
            "n": n,
            "sigma": self._sigma,
            "reason": self.reason or reason,
        }
