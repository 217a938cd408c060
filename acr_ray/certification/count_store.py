"""What is known of every image so far: counts of the phases, and verdicts once they are in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.procedure import CertificationProcedure, Counts, Verdict, added
from acr_ray.certification.work_items import BlockRange, missing_blocks


class Overlap(ValueError):
    """Blocks that were counted before, in other company: adding them would count some of them twice."""


class OpenImage:
    """An image with some of its draws."""

    __slots__ = ("counted", "counts", "phase", "seconds")

    def __init__(self) -> None:
        self.phase = 0  # position of the phase that it is in
        self.counts: dict[str, Counts] = {}
        self.counted: dict[str, list[tuple[int, int]]] = {}  # blocks, half open
        self.seconds = 0.0


class CountStore:
    """Adds up counts by image and phase. Keeps a few numbers for each image that is finished.

    Args:
        procedure: of the run.
        names, labels: of its images, by position.

    Attributes:
        phases: of the procedure, by name.
        noise_draws: behind all counts.
        finished: the verdict of each image that has one, by position.
    """

    def __init__(
        self, procedure: CertificationProcedure, names: Sequence[str], labels: Sequence[int] | NDArray[np.int64]
    ) -> None:
        self.procedure, self._names, self._labels = procedure, names, labels
        self.phases = {phase.name: phase for phase in procedure.phases}
        self.noise_draws = 0
        self.finished: dict[int, Verdict] = {}
        self._seconds: dict[int, float] = {}
        self._open: dict[int, OpenImage] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, block_range: BlockRange, counts: Mapping[int, int], seconds: float) -> bool:
        """Count some blocks. False if they are known already (an image that is finished takes no more).

        Raises:
            Overlap: some of the blocks are counted, others not.
        """
        first, stop = block_range.first, block_range.stop
        if block_range.image in self.finished:
            return False
        state = self._open.setdefault(block_range.image, OpenImage())
        counted = state.counted.setdefault(block_range.phase, [])
        if (first, stop) in counted:
            return False
        before = [(begin, min(end, stop)) for begin, end in counted if begin < stop]
        gaps = missing_blocks(stop, [*before, (0, first)])
        if gaps != [(first, stop)]:
            if not gaps:
                return False  # drawn in other work items: the same counts, since they come from the same seeds
            raise Overlap(f"blocks {first} to {stop - 1} of {block_range.phase}: some are counted already")
        counted.append((first, stop))
        state.counts[block_range.phase] = added([state.counts.get(block_range.phase, {}), dict(counts)])
        state.seconds += seconds
        self.noise_draws += block_range.blocks * self.phases[block_range.phase].block
        return True

    @property
    def waits(self) -> bool:
        """Whether images that lack nothing now may lack something later."""
        return False

    def planned_draws(self) -> int | None:
        """Return the run's noise draws; None where that depends on what is drawn, 0 while it is not known yet."""
        if len(self.procedure.rule.looks) > 1 or self.procedure.stops_when_wrong:
            return None
        return len(self) * sum(phase.blocks * phase.block for phase in self.procedure.phases)

    def missing(self, image: int) -> list[BlockRange]:
        """Return the blocks that the image's present phase lacks; none if it is whole, or the image finished.

        Changes nothing: `advance` takes an image whose phase is whole to its next.
        """
        if image in self.finished:
            return []
        state = self._open.get(image) or OpenImage()
        phase = self.procedure.phases[state.phase]
        gaps = missing_blocks(phase.blocks, state.counted.get(phase.name, ()))
        return [BlockRange(image, phase.name, first, stop) for first, stop in gaps]

    def advance(self, image: int) -> list[BlockRange]:
        """Take an image past each phase that is whole, to its verdict if the counts allow one.

        Returns:
            The blocks that it lacks now; none if it is finished.
        """
        while image not in self.finished:
            if lacking := self.missing(image):
                return lacking
            state = self._open[image]
            state.phase += 1
            whole = [state.counts[phase.name] for phase in self.procedure.phases[: state.phase]]
            verdict = self.procedure.verdict(whole, self._names[image], self._labels[image])
            if verdict is not None:
                self.finished[image], self._seconds[image] = verdict, state.seconds
                del self._open[image]
        return []

    def after(self, image: int) -> Iterable[int]:
        """Return the images that can be advanced now that an image's present phase is whole: it alone."""
        return (image,)

    def advance_all(self) -> None:
        """Find all verdicts that the counts added so far allow."""
        for image in list(self._open):
            self.advance(image)

    def seconds(self, image: int) -> float:
        """Device seconds spent on an image."""
        return self._seconds.get(image, 0.0)

    def restore(self, finished: Mapping[int, Verdict], seconds: Mapping[int, float], noise_draws: int) -> None:
        """Take over verdicts that were found elsewhere."""
        self.finished, self._seconds, self.noise_draws = dict(finished), dict(seconds), noise_draws
