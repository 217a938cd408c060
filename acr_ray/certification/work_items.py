"""Cutting a certification run into tasks. Pure functions of what is done and what is not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from acr_ray.smoothing.plan import Phase


@dataclass(frozen=True, order=True)
class BlockRange:
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


@dataclass(frozen=True)
class WorkItem:
    """The same blocks of one phase of several images, drawn in common forward passes."""

    images: tuple[int, ...]
    phase: Phase
    first: int
    stop: int

    @property
    def evaluations(self) -> int:
        return len(self.images) * (self.stop - self.first) * self.phase.block

    def spans(self) -> list[BlockRange]:
        return [BlockRange(image, self.phase.name, self.first, self.stop) for image in self.images]


def missing(blocks: int, done: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The intervals of ``range(blocks)`` that no interval of ``done`` (disjoint, half open) covers."""
    gaps, at = [], 0
    for first, stop in sorted(done):
        if first > at:
            gaps.append((at, first))
        at = max(at, stop)
    return [*gaps, (at, blocks)] if at < blocks else gaps


class Queue:
    """What is to be drawn next, images that have begun before new ones, so that few are open at a time.

    New images are begun in groups of neighbours whose selection draws share forward passes. The groups are cut from
    the whole list, so who is in which does not depend on when it is drawn.

    Args:
        images: how many images the run has.
        needs: gives the missing `BlockRange`s of an image's present phase; none where it is finished.
        phases: by name.
        rows: rows of a forward pass, at most, where several images share it.
        select: name of the phase in which images share forward passes.
    """

    def __init__(
        self, images: int, needs: Callable[[int], list[BlockRange]], phases: dict[str, Phase], rows: int, select: str
    ) -> None:
        self._needs, self._phases, self._select = needs, phases, select
        self._images, self._next = images, 0
        self._rows = rows
        self._ready: deque[WorkItem] = deque()
        self._waiting = 0  # evaluations in _ready

    @property
    def all_begun(self) -> bool:
        return self._next >= self._images

    def is_empty(self) -> bool:
        """Whether there is nothing to hand out now; begins images to find out."""
        while not self._ready and not self.all_begun:
            self._begin()
        return not self._ready

    def put(self, pieces: Iterable[WorkItem], *, first: bool = False) -> None:
        """Pieces to be drawn; ``first``: before all others (they were lost)."""
        for piece in pieces:
            self._waiting += piece.evaluations
            (self._ready.appendleft if first else self._ready.append)(piece)

    def go_on(self, image: int) -> None:
        """Queue what an image that has begun needs next."""
        self.put(WorkItem((s.image,), self._phases[s.phase], s.first, s.stop) for s in self._needs(image))

    def take(self, evaluations: int, hands: int = 1) -> list[WorkItem]:
        """About as many noisy forward passes as asked for, at least one block; empty where there is nothing now.

        Args:
            hands: who else will ask. What is left at the end is shared out among them.
        """
        taken: list[WorkItem] = []
        left = evaluations
        while left > 0 or not taken:
            if self.is_empty():
                break
            if self.all_begun and not taken:
                left = min(left, max(1, self._waiting // hands))
            piece = self._ready.popleft()
            self._waiting -= piece.evaluations
            row = len(piece.images) * piece.phase.block
            blocks = min(piece.stop - piece.first, max(1, left // row))
            cut = piece.first + blocks
            taken.append(replace(piece, stop=cut))
            if cut < piece.stop:
                self.put([replace(piece, first=cut)], first=True)
            left -= blocks * row
        return taken

    def _begin(self) -> None:
        group = group_of(self._next, self._images, self._phases[self._select], self._rows)
        self._next = group.stop
        new: list[int] = []
        for image in group:
            spans = self._needs(image)
            if spans and spans[0].phase == self._select:
                new.append(image)
            else:
                self.put(WorkItem((image,), self._phases[s.phase], s.first, s.stop) for s in spans)
        phase = self._phases[self._select]
        self.put([WorkItem(tuple(new), phase, 0, phase.blocks)] if new else [])


def group_of(image: int, images: int, select: Phase, rows: int) -> range:
    """The neighbours that an image's selection draws share forward passes with, itself among them."""
    size = max(1, rows // select.block)
    first = image // size * size
    return range(first, min(first + size, images))
