"""What is known of every image so far: counts of the phases, and verdicts once they are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acr_ray.certification.procedure import CertificationProcedure, Counts, Verdict, added
from acr_ray.certification.work_items import BlockRange, missing


class Overlap(ValueError):
    """Blocks that were counted before, in other company: adding them would count some of them twice."""


class _Open:
    """An image with some of its draws."""

    __slots__ = ("counts", "done", "seconds")

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {}
        self.done: dict[str, list[tuple[int, int]]] = {}
        self.seconds = 0.0


class CountStore:
    """Adds up spans by image and phase. Keeps a few numbers for each image that is finished.

    Args:
        procedure: of the run.
        names, labels: of its images, by position.
    """

    def __init__(self, procedure: CertificationProcedure, names: Sequence[str], labels: Sequence[int]) -> None:
        self.procedure, self._names, self._labels = procedure, names, labels
        self.phases = {phase.name: phase for phase in procedure.phases}
        self.evaluations = 0  # noisy forward passes behind all counts
        self.finished: dict[int, Verdict] = {}
        self._seconds: dict[int, float] = {}
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, span: BlockRange, counts: Mapping[int, int], seconds: float) -> bool:
        """Count a span. False where it is known already (an image that is finished takes no more).

        Raises:
            Overlap: some of its blocks are counted, others not.
        """
        if span.image in self.finished:
            return False
        state = self._open.setdefault(span.image, _Open())
        known = state.done.setdefault(span.phase, [])
        if (span.first, span.stop) in known:
            return False
        before = [(first, min(stop, span.stop)) for first, stop in known if first < span.stop]
        gaps = missing(span.stop, [*before, (0, span.first)])
        if gaps != [(span.first, span.stop)]:
            if not gaps:
                return False  # drawn in other pieces: the same counts, since they come from the same seeds
            raise Overlap(f"blocks {span.first} to {span.stop - 1} of {span.phase}: some are counted already")
        known.append((span.first, span.stop))
        state.counts[span.phase] = added([state.counts.get(span.phase, {}), dict(counts)])
        state.seconds += seconds
        self.evaluations += span.blocks * self.phases[span.phase].block
        return True

    def needs(self, image: int) -> list[BlockRange]:
        """The missing spans of the phase that the image is in; none, and a verdict, where it is finished."""
        if image in self.finished:
            return []
        state = self._open.get(image) or _Open()
        found: list[Counts] = []
        for phase in self.procedure.phases:
            gaps = missing(phase.blocks, state.done.get(phase.name, ()))
            if gaps:
                return [BlockRange(image, phase.name, first, stop) for first, stop in gaps]
            found.append(state.counts[phase.name])
            verdict = self.procedure.verdict(found, self._names[image], self._labels[image])
            if verdict is not None:
                self.finished[image], self._seconds[image] = verdict, state.seconds
                self._open.pop(image, None)
                return []
        raise AssertionError("a rule ends with its last look")

    def settle(self) -> None:
        """Find all verdicts that the counts added so far allow."""
        for image in list(self._open):
            self.needs(image)

    def seconds(self, image: int) -> float:
        """Device seconds spent on an image."""
        return self._seconds.get(image, 0.0)

    def restore(self, finished: Mapping[int, Verdict], seconds: Mapping[int, float], evaluations: int) -> None:
        """Take over verdicts that were found elsewhere."""
        self.finished, self._seconds, self.evaluations = dict(finished), dict(seconds), evaluations
