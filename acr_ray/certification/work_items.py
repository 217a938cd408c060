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
    def noise_draws(self) -> int:
        return len(self.images) * (self.stop - self.first) * self.phase.block

    def block_ranges(self) -> list[BlockRange]:
        return [BlockRange(image, self.phase.name, self.first, self.stop) for image in self.images]


def missing_blocks(blocks: int, counted: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the intervals of ``range(blocks)`` that no interval of ``counted`` (disjoint, half open) covers."""
    gaps, at = [], 0
    for first, stop in sorted(counted):
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
        advance: takes an image to its next phase if the present one is whole; returns the `BlockRange`s that it
            lacks now, none if it is finished.
        phases: by name.
        draws_per_pass: noise draws of a forward pass, at most, if several images share it.
        select: name of the phase in which images share forward passes.
        least: noise draws of a task, at least, while there are so many: the rows of a pass that costs the same if
            it is not full.
    """

    def __init__(
        self,
        images: int,
        advance: Callable[[int], list[BlockRange]],
        phases: dict[str, Phase],
        draws_per_pass: int,
        select: str,
        least: int = 1,
    ) -> None:
        self._advance, self._phases, self._select = advance, phases, select
        self._images, self._next = images, 0
        self._draws_per_pass, self._least = draws_per_pass, least
        self._items: deque[WorkItem] = deque()
        self._noise_draws = 0  # in _items

    @property
    def all_begun(self) -> bool:
        return self._next >= self._images

    def is_empty(self) -> bool:
        """Return whether there is nothing to dispatch now; begins images to find out."""
        while not self._items and not self.all_begun:
            self._begin()
        return not self._items

    def put(self, items: Iterable[WorkItem], *, first: bool = False) -> None:
        """Add work items; ``first``: before all others (they were lost)."""
        for item in items:
            self._noise_draws += item.noise_draws
            (self._items.appendleft if first else self._items.append)(item)

    def resume(self, image: int) -> None:
        """Queue what an image lacks next, after a phase of it is whole; one not begun yet is left for its turn."""
        if image < self._next:
            self.put(self._items_of(self._advance(image)))

    def take(self, noise_draws: int, tasks: int = 1) -> list[WorkItem]:
        """Take about as many noise draws as asked for, at least one block; empty if there is nothing now.

        Args:
            tasks: how many such tasks are under way at once. What is left at the end is shared out among them.
        """
        taken: list[WorkItem] = []
        left = noise_draws
        while left > 0 or not taken:
            if self.is_empty():
                break
            if self.all_begun and not taken:
                left = min(left, max(self._least, self._noise_draws // tasks))
            item = self._items.popleft()
            self._noise_draws -= item.noise_draws
            draws_per_block = len(item.images) * item.phase.block
            blocks = min(item.stop - item.first, max(1, left // draws_per_block))
            cut = item.first + blocks
            taken.append(replace(item, stop=cut))
            if cut < item.stop:
                self.put([replace(item, first=cut)], first=True)
            left -= blocks * draws_per_block
        return taken

    def _begin(self) -> None:
        group = group_of(self._next, self._images, self._phases[self._select], self._draws_per_pass)
        self._next = group.stop
        new: list[int] = []
        for image in group:
            lacking = self._advance(image)
            if lacking and lacking[0].phase == self._select:
                new.append(image)
            else:
                self.put(self._items_of(lacking))
        phase = self._phases[self._select]
        self.put([WorkItem(tuple(new), phase, 0, phase.blocks)] if new else [])

    def _items_of(self, lacking: Iterable[BlockRange]) -> list[WorkItem]:
        return [WorkItem((r.image,), self._phases[r.phase], r.first, r.stop) for r in lacking]


def group_of(image: int, images: int, select: Phase, draws_per_pass: int) -> range:
    """Return the neighbours that an image's selection draws share forward passes with, itself among them."""
    size = max(1, draws_per_pass // select.block)
    first = image // size * size
    return range(first, min(first + size, images))
