"""The gate: whether a new model keeps what is required of it, image by image in an order fixed beforehand. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.procedure import Verdict
from acr_ray.formats.states import Outcome
from acr_ray.serving.paired import HOLDS, OPEN, VIOLATED, PairedTest
from acr_ray.serving.requirements import ABSTAINED, HARD, Requirement
from acr_ray.settings.seeds import derive_seed
from acr_ray.smoothing.bounds import radius


@dataclass(frozen=True)
class ImageOutcome:
    """What a certificate says of one image.

    Attributes:
        radius: certified radius if the certified class is the label, else 0.
        hard: fewer than half of its draws gave the label.
        abstained: it has no certificate.
    """

    radius: float
    hard: bool
    abstained: bool

    @classmethod
    def of(cls, verdict: Verdict, label: int, sigma: float) -> ImageOutcome:
        certified = verdict.outcome == Outcome.CERTIFIED
        held = float(radius(verdict.p_lower, sigma)) if certified and verdict.predicted == label else 0.0
        return cls(held, 2 * verdict.counts.get(label, 0) < verdict.n, not certified)

    def good(self, requirement: Requirement) -> bool:
        """Whether the image counts for the model by a requirement's metric."""
        if requirement.metric == HARD:
            return not self.hard
        if requirement.metric == ABSTAINED:
            return not self.abstained
        assert requirement.radius is not None
        return self.radius > 0 and self.radius >= requirement.radius


@dataclass(frozen=True)
class Finding:
    """What is known of one requirement, of one class where each class must keep it.

    Attributes:
        answer: ``holds``, ``violated`` or ``open``.
        label: the class; None: all images.
        images: seen so far.
        difference: new minus old among them, in shares, in the requirement's own sense: of hard images more is worse.
    """

    requirement: Requirement
    label: int | None
    answer: str
    images: int
    difference: float


class Gate:
    """Judges requirements on images as they come.

    Said to be kept though one is not: with probability at most alpha, as all must be found to hold and each is at
    that level (intersection-union). Said to be broken though all are kept: with probability at most alpha, shared
    evenly (union bound). "The images" are all that the old model was certified on, and the mean over them is what is
    judged; or they are a sample, and that of the population they come from is.

    Args:
        requirements: of the new model.
        labels: of all images in their order, (M,).
        alpha: in (0, 1).
        population: judge the population.
    """

    def __init__(
        self, requirements: Sequence[Requirement], labels: NDArray[np.int64], alpha: float, population: bool = False
    ) -> None:
        classes, sizes = np.unique(labels, return_counts=True)
        kept: list[tuple[Requirement, int | None, int]] = []
        for requirement in requirements:
            if requirement.by_class:
                kept += [(requirement, int(c), int(size)) for c, size in zip(classes, sizes, strict=True)]
            else:
                kept.append((requirement, None, len(labels)))
        self._tests = [
            (
                requirement,
                label,
                PairedTest(None if population else images, requirement.margin, alpha, alpha / len(kept)),
            )
            for requirement, label, images in kept
        ]
        self.seen = 0

    def add(self, label: int, old: ImageOutcome, new: ImageOutcome) -> None:
        """See the next image."""
        self.seen += 1
        for requirement, only, test in self._tests:
            if only in (None, label):
                test.add(int(new.good(requirement)) - int(old.good(requirement)))

    @property
    def answer(self) -> str:
        """``holds``, ``violated``, or ``open`` while that is not known."""
        answers = {test.answer for _, _, test in self._tests}
        return VIOLATED if VIOLATED in answers else OPEN if OPEN in answers else HOLDS

    def findings(self) -> list[Finding]:
        """Return what is known of each requirement, in their order, and class by class."""
        found = []
        for requirement, label, test in self._tests:
            sign = -1 if requirement.metric in (HARD, ABSTAINED) else 1
            difference = sign * test.total / test.seen if test.seen else 0.0
            found.append(Finding(requirement, label, test.answer, test.seen, difference))
        return found


def gate_order(names: Sequence[str], seed: int) -> list[int]:
    """Return the order in which images are seen: random, a function of their names and the seed alone."""
    return sorted(range(len(names)), key=lambda i: (derive_seed(seed, "gate", names[i]), names[i]))
