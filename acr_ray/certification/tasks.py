"""Cutting a certification run into tasks. Pure functions of what is done and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from acr_ray.smoothing.plan import Phase


@dataclass(frozen=True, order=True)
class Span:
    """Consecutive blocks of one phase of one image: ``first`` to ``stop - 1``.

    Attributes:
        image: position in the list of images of this run.
        phase: name of the phase.
    """

    image: int
    phase: str
    first: int
    stop: int

    @property
    def blocks(self) -> int:
        return self.stop - self.first


def missing(blocks: int, done: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The intervals of ``range(blocks)`` that no interval of ``done`` (disjoint, half open) covers."""
    gaps, at = [], 0
    for first, stop in sorted(done):
        if first > at:
            gaps.append((at, first))
        at = max(at, stop)
    return [*gaps, (at, blocks)] if at < blocks else gaps


def pending(
    images: int, phases: tuple[Phase, ...], done: dict[tuple[int, str], list[tuple[int, int]]]
) -> Iterator[tuple[Span, Phase]]:
    """What is left to draw, image by image and phase by phase, lazily."""
    for image in range(images):
        for phase in phases:
            for first, stop in missing(phase.blocks, done.get((image, phase.name), ())):
                yield Span(image, phase.name, first, stop), phase


class TaskCutter:
    """Cuts what is left into tasks of about as many evaluations as asked for at the time.

    A task holds whole small images, or a part of a large one; a block is never split.
    """

    def __init__(self, spans: Iterator[tuple[Span, Phase]]) -> None:
        self._spans = spans
        self._rest: tuple[Span, Phase] | None = None

    def take(self, evaluations: int) -> list[Span]:
        """The next spans, about ``evaluations`` noisy forward passes, at least one block; empty at the end."""
        taken: list[Span] = []
        left = evaluations
        while left > 0 or not taken:
            span, phase = self._rest or next(self._spans, (None, None))
            self._rest = None
            if span is None:
                break
            blocks = min(span.blocks, max(1, left // phase.block))
            taken.append(Span(span.image, span.phase, span.first, span.first + blocks))
            if blocks < span.blocks:
                self._rest = (Span(span.image, span.phase, span.first + blocks, span.stop), phase)
            left -= blocks * phase.block
        return taken
