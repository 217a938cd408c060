"""Hands out the drawing, keeps bounded work in flight, and writes what comes back to the ledger. No Ray in here."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.count_store import CountStore
from acr_ray.certification.ledger import Ledger, Line
from acr_ray.certification.sampler import SampleRequest
from acr_ray.certification.sampler_pool import READY, Lost, SamplerHandle, SamplerPool
from acr_ray.certification.work_items import Queue, WorkItem
from acr_ray.data import ImageSet
from acr_ray.smoothing.plan import SELECT

AHEAD = 2  # tasks sent to an actor before its first result is back: one at work, one waiting
TASK_SECONDS = 1.0  # what a task should take at least: short enough to lose little with an actor
TASKS_PER_SECOND = 25  # what the coordinator should have to handle at most, whatever the number of actors
RATE_SECONDS = 4.0  # of drawing before a speed is known
FLUSH_SECONDS = 1.0  # results wait at most so long for the ledger
KEEP_IMAGES = 64  # images kept decoded
STRAGGLER = 10.0  # times the usual time of a task, from which it is also given to somebody idle
STRAGGLER_SECONDS = 30.0  # but never sooner than this


class SamplersLost(RuntimeError):
    """Actors die again and again without a result."""


class StorageLost(RuntimeError):
    """Results could not be written for so long that going on makes no sense."""


@dataclass(frozen=True)
class CertificationProgress:
    """How far a run is: for progress lines."""

    images_done: int
    images: int
    evaluations: int
    evaluations_planned: int  # an estimate where images stop at their own time; 0 where nothing is known yet
    rate: float  # evaluations a second since the first result, all actors; 0 in the first `RATE_SECONDS`
    actors: int

    @property
    def seconds_left(self) -> float:
        left = self.evaluations_planned - self.evaluations
        return left / self.rate if self.rate > 0 and self.evaluations_planned else float("inf")


@dataclass
class _Task:
    """Pieces under way with one sampler."""

    pieces: list[WorkItem]
    sent: float
    copied: bool = False  # somebody else has it too


@dataclass
class _Worker:
    """What is known of a sampler."""

    ready: bool = False
    tasks: dict[int, _Task] = field(default_factory=dict)  # by id of the list of draws


class Coordinator:
    """Draws all that the store does not have yet.

    Samplers that die are replaced and their tasks sent again: a span's counts depend on its seed alone, so nothing
    but time is lost. A task that takes far too long is given to an idle sampler as well; whichever answer comes
    first counts. Results go to the ledger at least every second; while the storage fails they are kept and tried
    again.

    Args:
        ledger, store: of the run, the store as read from the ledger.
        images: to draw from, by position.
        pool: starts and talks to samplers.
        low, high: how many samplers there should be: those that are not there yet are asked for, and what is not
            needed any more at the end is given back, down to ``low``.
        rows: rows of a forward pass, at most.
        patience: seconds for which the storage may fail.
    """

    def __init__(
        self, ledger: Ledger, store: CountStore, images: ImageSet, pool: SamplerPool, low: int, high: int, rows: int,
        patience: float = 600.0, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._ledger, self._store, self._images, self._pool = ledger, store, images, pool
        self._low, self._high, self._patience, self._clock = low, high, patience, clock
        self._queue = Queue(len(store), store.needs, store.phases, rows, SELECT)
        self.workers: dict[SamplerHandle, _Worker] = {}
        self.wasted = 0  # evaluations that were drawn more than once
        self._pixels: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._unwritten: list[Line] = []
        self._written = self._failing = self._clock()
        self._first_size, self._rate = 4 * rows, 0.0  # of tasks while no speed is known
        self._fruitless = 0
        self._before, self._started = store.evaluations, None

    def run(self, on_progress: Callable[[CertificationProgress], None] = lambda standing: None) -> None:
        """Draw until every image is finished.

        Raises:
            SamplersLost: more than three times as many samplers as there should be died in a row without a result.
            StorageLost: the ledger could not be written for ``patience`` seconds.
            Exception: what a sampler raised, e.g. as the model answers NaN.
        """
        try:
            if not self._all_finished():
                for _ in range(self._high):
                    self._hire()
            while not self._all_finished():
                self._send()
                for hand, what, answer in self._pool.wait(0.2 if self._unwritten else 1.0):
                    self._take_in(hand, what, answer)
                self._flush(force=len(self._unwritten) > 10_000)
                self._again_where_stuck()
                on_progress(self._standing())
            while self._unwritten:
                self._pool.wait(0.5)
                self._flush(force=True)
        finally:
            self._flush(force=True)  # also on the way out after a stop or a failure
            for hand in list(self.workers):
                self._dismiss(hand)

    def _all_finished(self) -> bool:
        return len(self._store.finished) == len(self._store)

    def _hire(self) -> None:
        self.workers[self._pool.start()] = _Worker()

    def _dismiss(self, hand: SamplerHandle) -> None:
        self.workers.pop(hand, None)
        self._pool.release(hand)

    def _send(self) -> None:
        """Give each sampler that is ready up to `AHEAD` tasks, those with the fewest first."""
        at_work = sum(worker.ready for worker in self.workers.values())
        size = self._size(max(at_work, 1))
        for level in range(AHEAD):
            for hand, worker in self.workers.items():
                if worker.ready and len(worker.tasks) == level:
                    pieces = self._queue.take(size, AHEAD * max(at_work, 1))
                    if not pieces:
                        return self._shrink()
                    self._hand_over(hand, pieces)
        return None

    def _size(self, at_work: int) -> int:
        """Evaluations of a task: by the speed seen, so long that many samplers don't overrun the coordinator."""
        seconds = max(TASK_SECONDS, at_work / TASKS_PER_SECOND)
        return self._first_size if not self._rate else max(1, int(self._rate * seconds))

    def _hand_over(self, hand: SamplerHandle, pieces: list[WorkItem]) -> None:
        draws = [
            SampleRequest(
                tuple(self._images.names[i] for i in p.images), self._pixels_of(p.images), p.phase, p.first, p.stop
            )
            for p in pieces
        ]
        self.workers[hand].tasks[id(draws)] = _Task(pieces, self._clock())
        self._pool.draw(hand, draws)  # which keeps the list, so its id stays its own

    def _pixels_of(self, images: tuple[int, ...]) -> NDArray[np.float32]:
        absent = [i for i in images if i not in self._pixels]
        if absent:
            loaded = self._images.load(absent, None).numpy()
            self._pixels.update(zip(absent, loaded, strict=True))
        for image in images:
            self._pixels.move_to_end(image)
        found = np.stack([self._pixels[image] for image in images])
        while len(self._pixels) > KEEP_IMAGES:
            self._pixels.popitem(last=False)
        return found

    def _shrink(self) -> None:
        """Give back samplers that nothing is left for."""
        if self._queue.all_begun:
            idle = [hand for hand, worker in self.workers.items() if not worker.tasks]
            for hand in idle[: max(0, len(self.workers) - self._low)]:
                self._dismiss(hand)

    def _take_in(self, hand: SamplerHandle, what: list[SampleRequest] | str, answer: object) -> None:
        worker = self.workers.get(hand)
        if worker is None:  # dismissed or replaced meanwhile
            return
        if isinstance(answer, Lost):
            self._replace(hand, answer)
        elif what == READY:
            worker.ready = True
        else:
            self._fruitless = 0
            task = worker.tasks.pop(id(what))
            for piece, (counts, seconds) in zip(task.pieces, answer, strict=True):  # type: ignore[call-overload]
                self._add(piece, counts, seconds)
            self._adapt(task.pieces, sum(seconds for _, seconds in answer))  # type: ignore[attr-defined]

    def _add(self, piece: WorkItem, counts: NDArray[np.int64], seconds: float) -> None:
        for span, row in zip(piece.spans(), counts, strict=True):
            sparse = {int(c): int(row[c]) for c in np.flatnonzero(row)}
            share = seconds / len(piece.images)
            if self._store.add(span, sparse, share):
                self._unwritten.append((span, sparse, share))
                if self._phase_is_whole(span.image, span.phase):
                    self._queue.go_on(span.image)
            else:
                self.wasted += span.blocks * piece.phase.block

    def _phase_is_whole(self, image: int, phase: str) -> bool:
        """Whether an image is done with a phase, so that what it needs next is not under way yet."""
        needs = self._store.needs(image)
        return bool(needs) and needs[0].phase != phase

    def _replace(self, hand: SamplerHandle, lost: Lost) -> None:
        worker = self.workers[hand]
        self._dismiss(hand)
        for task in worker.tasks.values():
            if not task.copied:
                self._queue.put(task.pieces, first=True)
        self._fruitless += 1
        if self._fruitless > 3 * self._high + 3:
            raise SamplersLost(f"sampler actors die without a result ({lost.why})")
        self._hire()

    def _again_where_stuck(self) -> None:
        """Give tasks that take far too long to samplers with nothing to do."""
        idle = [hand for hand, worker in self.workers.items() if worker.ready and not worker.tasks]
        if not idle or not self._rate or not self._queue.all_begun:
            return
        now = self._clock()
        for worker in list(self.workers.values()):
            for task in worker.tasks.values():
                usual = sum(piece.evaluations for piece in task.pieces) / self._rate
                late = now - task.sent > max(STRAGGLER_SECONDS, AHEAD * STRAGGLER * usual)
                if late and not task.copied and idle:
                    task.copied = True
                    self._hand_over(idle.pop(), task.pieces)

    def _flush(self, force: bool = False) -> None:
        now = self._clock()
        if not self._unwritten:
            self._written = self._failing = now
            return
        if not force and now - self._written < FLUSH_SECONDS:
            return
        try:
            self._ledger.append(self._unwritten)
        except OSError as error:
            if now - self._failing > self._patience:
                raise StorageLost(f"the ledger could not be written for {self._patience:.0f} s ({error})") from error
            self._written = now  # the next try in a second
            return
        self._unwritten = []
        self._written = self._failing = self._clock()

    def _adapt(self, pieces: list[WorkItem], seconds: float) -> None:
        """One sampler's speed, by which tasks are sized; counts don't depend on it."""
        rate = sum(piece.evaluations for piece in pieces) / max(seconds, 1e-6)
        # Half way there each time: the first task of an actor is slow, and one odd task should not matter.
        self._rate = rate if not self._rate else (self._rate + min(rate, 4 * self._rate)) / 2

    def _standing(self) -> CertificationProgress:
        drawn, now, done = self._store.evaluations, self._clock(), len(self._store.finished)
        if self._started is None and drawn > self._before:  # from the first result: actors take a while to start
            self._before, self._started = drawn, now
        # Not known at once: the first results are those of the smallest tasks, while the larger are under way.
        known = self._started is not None and now - self._started >= RATE_SECONDS
        rate = (drawn - self._before) / (now - self._started) if known else 0.0
        ready = sum(worker.ready for worker in self.workers.values())
        return CertificationProgress(done, len(self._store), drawn, self._planned(drawn, done), rate, ready)

    def _planned(self, drawn: int, done: int) -> int:
        rule = self._store.procedure.rule
        if len(rule.looks) == 1 and not self._store.procedure.stops_when_wrong:
            return len(self._store) * sum(p.blocks * p.block for p in self._store.procedure.phases)
        return round(drawn / done * len(self._store)) if done else 0
