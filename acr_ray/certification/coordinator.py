"""Dispatches the drawing, keeps bounded work in flight, and writes what comes back to the ledger. No Ray in here."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from acr_ray.certification.count_store import CountStore
from acr_ray.certification.image_cache import WITH_SAMPLER, ImageCache, Kept, most_kept
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.ledger_writer import LedgerWriter, StorageLost
from acr_ray.certification.pool import (
    Machine,
    PoolEvent,
    SampleRequest,
    SampleResult,
    SamplerHandle,
    SamplerLost,
    SamplerPool,
    SamplerReady,
    TaskDone,
)
from acr_ray.certification.procedure import sparse
from acr_ray.certification.progress_meter import ProgressMeter
from acr_ray.certification.rate_estimator import RateEstimator
from acr_ray.certification.work_items import Queue, WorkItem
from acr_ray.data import ImageSet
from acr_ray.smoothing.plan import SELECT
from acr_ray.telemetry.progress import CertificationProgress

__all__ = ["CertificationProgress", "Coordinator", "SamplersLost", "StorageLost"]

AHEAD = 2  # tasks sent to an actor before its first result is back: one at work, one waiting
STRAGGLER = 10.0  # times the usual time of a task, from which it is also given to an idle sampler
STRAGGLER_SECONDS = 30.0  # but never sooner than this


class SamplersLost(RuntimeError):
    """Actors die again and again without a result."""


@dataclass
class _Task:
    """Work items under way with one sampler."""

    items: list[WorkItem]
    sent: float  # by the coordinator's clock
    copied: bool = False  # another sampler has it too

    @property
    def noise_draws(self) -> int:
        return sum(item.noise_draws for item in self.items)


@dataclass
class _SamplerState:
    """What is known of a sampler."""

    keeps: Kept[str, None]  # the images that it has
    ready: bool = False
    tasks: dict[int, _Task] = field(default_factory=dict)  # by task id


class Coordinator:
    """Draws all that the store does not have yet.

    Samplers that die are replaced and their tasks sent again: the counts of a block depend on its seed alone, so
    nothing but time is lost. A task that takes far too long is given to an idle sampler as well; whichever result
    comes first counts. Results go to the ledger at least every second; while the storage fails they are kept and
    tried again.

    Args:
        ledger, store: of the run, the store as read from the ledger.
        images: to draw from, by position.
        pool: starts and talks to samplers.
        low, high: how many samplers there should be: those that are not there yet are asked for, and what is not
            needed any more at the end is given back, down to ``low``.
        draws_per_pass: noise draws of a forward pass, at most.
        patience: seconds for which the storage may fail.
        clock: seconds that only grow.
        shared: every pass has ``draws_per_pass`` rows, of any images; else those of one work item.

    Attributes:
        samplers: those that were started and neither lost nor released.
        wasted: noise draws that were drawn more than once.
        machines: what the samplers draw with, those of before included.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: CountStore,
        images: ImageSet,
        pool: SamplerPool,
        low: int,
        high: int,
        draws_per_pass: int,
        patience: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        shared: bool = False,
    ) -> None:
        self._store, self._pool, self._low, self._high, self._clock = store, pool, low, high, clock
        self._names, self._cache = images.names, ImageCache(images)
        self._most_kept = most_kept(WITH_SAMPLER, math.prod(images.shape))
        least = draws_per_pass if shared else 1
        self._queue = Queue(len(store), store.advance, store.phases, draws_per_pass, SELECT, least)
        self._writer, self._meter = LedgerWriter(ledger, patience, clock), ProgressMeter(store, clock)
        self._rate = RateEstimator(first_size=4 * draws_per_pass)
        self._task_ids = itertools.count()
        self._losses_in_a_row = 0
        self.samplers: dict[SamplerHandle, _SamplerState] = {}
        self.wasted = 0
        self.machines: set[Machine] = set()

    def run(self, on_progress: Callable[[CertificationProgress], None] = lambda progress: None) -> None:
        """Draw until every image is finished.

        Raises:
            SamplersLost: more than three times as many samplers as there should be died in a row without a result.
            StorageLost: the ledger could not be written for ``patience`` seconds.
            Exception: what a sampler raised, e.g. if the model answers NaN.
        """
        try:
            if not self._all_finished():
                for _ in range(self._high):
                    self._start_sampler()
            while not self._all_finished():
                self._dispatch()
                for event in self._pool.wait(0.2 if self._writer.unwritten else 1.0):
                    self._handle(event)
                self._writer.flush()
                self._copy_stragglers()
                on_progress(self._meter.measure(self._ready_samplers()))
            while self._writer.unwritten:
                self._pool.wait(0.5)
                self._writer.flush(force=True)
        finally:
            self._writer.flush(force=True)  # also on the way out after a stop or a failure
            for sampler in list(self.samplers):
                self._stop_sampler(sampler)

    def _all_finished(self) -> bool:
        return len(self._store.finished) == len(self._store)

    def _ready_samplers(self) -> int:
        return sum(state.ready for state in self.samplers.values())

    def _start_sampler(self) -> None:
        self.samplers[self._pool.start()] = _SamplerState(Kept(self._most_kept))

    def _stop_sampler(self, sampler: SamplerHandle) -> None:
        self.samplers.pop(sampler, None)
        self._pool.release(sampler)

    def _dispatch(self) -> None:
        """Give each sampler that is ready up to `AHEAD` tasks, those with the fewest first."""
        ready = max(self._ready_samplers(), 1)
        size = self._rate.task_size(ready)
        for level in range(AHEAD):
            for sampler, state in self.samplers.items():
                if state.ready and len(state.tasks) == level:
                    items = self._queue.take(size, AHEAD * ready)
                    if not items:
                        return self._stop_idle()
                    self._send(sampler, items)
        return None

    def _send(self, sampler: SamplerHandle, items: list[WorkItem]) -> None:
        keeps = self.samplers[sampler].keeps
        task_id, requests = next(self._task_ids), [self._request(item, keeps) for item in items]
        keeps.trim()
        self.samplers[sampler].tasks[task_id] = _Task(items, self._clock())
        self._pool.draw(sampler, task_id, requests)

    def _request(self, item: WorkItem, keeps: Kept[str, None]) -> SampleRequest:
        names = tuple(self._names[i] for i in item.images)
        pixels = None if keeps.has(names) else self._cache.pixels(item.images)
        keeps.use(names, None if pixels is None else [None] * len(names))
        return SampleRequest(names, pixels, item.phase, item.first, item.stop)

    def _stop_idle(self) -> None:
        """Give back samplers that nothing is left for."""
        if self._queue.all_begun and not self._store.waits:
            idle = [sampler for sampler, state in self.samplers.items() if not state.tasks]
            for sampler in idle[: max(0, len(self.samplers) - self._low)]:
                self._stop_sampler(sampler)

    def _handle(self, event: PoolEvent) -> None:
        state = self.samplers.get(event.sampler)
        if state is None:  # stopped or replaced meanwhile
            return
        if isinstance(event, SamplerLost):
            self._replace(event.sampler, state, event.reason)
        elif isinstance(event, SamplerReady):
            state.ready = True
            if event.machine is not None:
                self.machines.add(event.machine)
        elif isinstance(event, TaskDone):
            self._losses_in_a_row = 0
            task = state.tasks.pop(event.task_id)
            for item, result in zip(task.items, event.results, strict=True):
                self._add(item, result)
            self._rate.observe(task.noise_draws, sum(result.seconds for result in event.results))

    def _add(self, item: WorkItem, result: SampleResult) -> None:
        seconds = result.seconds / len(item.images)
        for block_range, row in zip(item.block_ranges(), result.counts, strict=True):
            counts = sparse(row)
            if self._store.add(block_range, counts, seconds):
                self._writer.add((block_range, counts, seconds))
                if not self._store.missing(block_range.image):
                    for image in self._store.after(block_range.image):
                        self._queue.resume(image)
            else:
                self.wasted += block_range.blocks * item.phase.block

    def _replace(self, sampler: SamplerHandle, state: _SamplerState, reason: str) -> None:
        self._stop_sampler(sampler)
        for task in state.tasks.values():
            if not task.copied:
                self._queue.put(task.items, first=True)
        self._losses_in_a_row += 1
        if self._losses_in_a_row > 3 * self._high + 3:
            raise SamplersLost(f"sampler actors die without a result ({reason})")
        self._start_sampler()

    def _copy_stragglers(self) -> None:
        """Give tasks that take far too long to samplers with nothing to do."""
        idle = [sampler for sampler, state in self.samplers.items() if state.ready and not state.tasks]
        if not idle or not self._rate.rate or not self._queue.all_begun:
            return
        now = self._clock()
        for state in list(self.samplers.values()):
            for task in state.tasks.values():
                usual = self._rate.seconds_for(task.noise_draws)
                late = now - task.sent > max(STRAGGLER_SECONDS, AHEAD * STRAGGLER * usual)
                if late and not task.copied and idle:
                    task.copied = True
                    self._send(idle.pop(), task.items)
