"""The count store of a run whose images stop together, by what the counts of all of them say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.count_store import CountStore, OpenImage
from acr_ray.certification.procedure import CertificationProcedure
from acr_ray.certification.work_items import BlockRange, missing_blocks
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.distribution_rule import DistributionRule
from acr_ray.smoothing.plan import ESTIMATE, SELECT


class JointCountStore(CountStore):
    """Draws of `DistributionRule`: pilot draws of all images, then look after look of all.

    An image that has the draws of the present look waits for the others. A look that was once gone beyond is not
    judged again when a run resumes: draws of the next one are there.

    Attributes:
        error: what the last look that was judged knows the distribution to, a share of images; None before the first.
    """

    def __init__(
        self, procedure: CertificationProcedure, names: Sequence[str], labels: Sequence[int] | NDArray[np.int64]
    ) -> None:
        super().__init__(procedure, names, labels)
        rule = procedure.rule
        assert isinstance(rule, DistributionRule)
        self._rule, self._estimate = rule, self.phases[ESTIMATE]
        self._draws: NDArray[np.int64] | None = None  # (looks, images), once all pilot draws are in
        self._look = 0
        self._lacking: set[int] | None = None  # images with draws of the present look to come
        self.error: float | None = None

    @property
    def waits(self) -> bool:
        return len(self.finished) < len(self)

    def planned_draws(self) -> int | None:
        if self._draws is None:
            return 0
        blocks = sum(self._goal(image) for image in range(len(self)))
        return len(self) * self.phases[SELECT].blocks * self.phases[SELECT].block + blocks * self._estimate.block

    def missing(self, image: int) -> list[BlockRange]:
        if image in self.finished:
            return []
        phase = self.phases[SELECT] if self._draws is None else self._estimate
        goal = self._goal(image)
        counted = self._state(image).counted.get(phase.name, ())
        gaps = missing_blocks(goal, [(first, min(stop, goal)) for first, stop in counted if first < goal])
        return [BlockRange(image, phase.name, first, stop) for first, stop in gaps]

    def advance(self, image: int) -> list[BlockRange]:
        return self.missing(image)

    def after(self, image: int) -> Iterable[int]:
        """Return all images if this was the last that the present look lacked."""
        if self._lacking is None:
            self._lacking = self._all_lacking()
        self._lacking.discard(image)
        return range(len(self)) if self._judge() else ()

    def advance_all(self) -> None:
        """Find how far the counts added so far go.

        Raises:
            UserError: an image has draws that this run never asks for.
        """
        self._lacking = self._all_lacking()
        self._judge()

    def _state(self, image: int) -> OpenImage:
        return self._open.get(image) or OpenImage()

    def _goal(self, image: int) -> int:
        """Return how many blocks of the present phase an image should have."""
        if self._draws is None:
            return self.phases[SELECT].blocks
        return -(-int(self._draws[self._look, image]) // self._estimate.block)

    def _all_lacking(self) -> set[int]:
        return {image for image in range(len(self)) if self.missing(image)}

    def _judge(self) -> bool:
        """Go on to the first look with draws to come, or to the end. Returns whether anything moved."""
        moved = False
        while not self._lacking and self.waits:
            moved = True
            if self._draws is None:
                self._draws = self._rule.draws_at_looks(self._label_counts(SELECT))
            elif self._gone_beyond():
                self._look += 1
            else:
                self.error = self._rule.error_after(self._label_counts(ESTIMATE), self._draws[self._look])
                if self.error <= self._rule.error or self._look + 1 == len(self._draws):
                    self._finish()
                    break
                self._look += 1
            self._lacking = self._all_lacking()
        return moved

    def _gone_beyond(self) -> bool:
        assert self._draws is not None
        for image in range(len(self)):
            drawn = max((stop for _, stop in self._state(image).counted.get(ESTIMATE, ())), default=0)
            if drawn > self._goal(image):
                if self._look + 1 == len(self._draws):
                    raise UserError(
                        f"{self._names[image]}: its ledger has {drawn} blocks, this run asks for {self._goal(image)}"
                    )
                return True
        return False

    def _label_counts(self, phase: str) -> NDArray[np.int64]:
        found = (self._state(i).counts.get(phase, {}).get(int(self._labels[i]), 0) for i in range(len(self)))
        return np.fromiter(found, dtype=np.int64, count=len(self))

    def _finish(self) -> None:
        for image in range(len(self)):
            state = self._open.pop(image)
            counts = [state.counts[SELECT], state.counts[ESTIMATE]]
            verdict = self.procedure.verdict(counts, self._names[image], int(self._labels[image]))
            assert verdict is not None
            self.finished[image], self._seconds[image] = verdict, state.seconds
