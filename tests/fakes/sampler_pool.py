"""Samplers that only pretend: they answer after a given time on a clock of their own, or get lost."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from acr_ray.certification.pool import PoolEvent, SampleRequest, SampleResult, SamplerLost, SamplerReady, TaskDone
from acr_ray.settings.seeds import derive_seed


class SimulatedSamplerPool:
    """A `SamplerPool` in which a block takes ``block_seconds`` of simulated time and nothing of ours.

    Counts are a function of image, phase and block alone, as real ones are.

    Args:
        num_classes: length of the count vectors.
        block_seconds: simulated seconds of a block of an image.
        start_seconds: until a sampler is ready.
        fails: asked before each task, with the sampler's number and the time: True loses the sampler half way.
        slows: factor on a task's time by sampler number.
    """

    def __init__(
        self,
        num_classes: int = 10,
        block_seconds: float = 1.0,
        start_seconds: float = 5.0,
        fails: Callable[[int, float], bool] = lambda sampler, now: False,
        slows: Callable[[int], float] = lambda sampler: 1.0,
    ) -> None:
        self.now, self.started, self.tasks = 0.0, 0, 0
        self.blocks = self.lost_blocks = 0  # sent; and of those, under way with samplers when they were released
        self._under_way: dict[int, dict[int, int]] = {}
        self._kept: dict[int, set[str]] = {}  # images that a sampler was sent
        self._num_classes, self._block_seconds, self._start_seconds = num_classes, block_seconds, start_seconds
        self._fails, self._slows = fails, slows
        self._events: list[tuple[float, int, PoolEvent]] = []
        self._busy_until: dict[int, float] = {}
        self._serial = 0

    def clock(self) -> float:
        return self.now

    def start(self) -> int:
        sampler = self.started
        self.started += 1
        self._busy_until[sampler] = self.now + self._start_seconds
        self._push(self._busy_until[sampler], SamplerReady(sampler))
        return sampler

    def draw(self, sampler: int, task_id: int, requests: Sequence[SampleRequest]) -> None:
        self.tasks += 1
        kept = self._kept.setdefault(sampler, set())
        for request in requests:
            assert request.pixels is not None or kept.issuperset(request.names), "it has never had this image"
            kept.update(request.names)
        blocks = sum(len(r.names) * (r.stop - r.first) for r in requests)
        self.blocks += blocks
        self._under_way.setdefault(sampler, {})[task_id] = blocks
        seconds = blocks * self._block_seconds * self._slows(sampler)
        if self._fails(sampler, self.now):
            self._push(self._busy_until[sampler] + seconds / 2, SamplerLost(sampler, "simulated"))
            return
        self._busy_until[sampler] = max(self._busy_until[sampler], self.now) + seconds
        self._push(self._busy_until[sampler], TaskDone(sampler, task_id, [self._result(r) for r in requests]))

    def wait(self, seconds: float) -> list[PoolEvent]:
        if not self._events or self._events[0][0] > self.now + seconds:
            self.now += seconds
            return []
        self.now = max(self.now, self._events[0][0])
        events = []
        while self._events and self._events[0][0] <= self.now:
            event = heapq.heappop(self._events)[-1]
            if event.sampler in self._busy_until:
                events.append(event)
                if isinstance(event, TaskDone):
                    self._under_way[event.sampler].pop(event.task_id)
        return events

    def release(self, sampler: int) -> None:
        self._busy_until.pop(sampler, None)
        self.lost_blocks += sum(self._under_way.pop(sampler, {}).values())

    def favourite(self, image: str) -> int:
        """Return the class that most draws of an image get."""
        return derive_seed(0, "favourite", image) % self._num_classes

    def _push(self, at: float, event: PoolEvent) -> None:
        self._serial += 1
        heapq.heappush(self._events, (at, self._serial, event))

    def _result(self, request: SampleRequest) -> SampleResult:
        blocks = len(request.names) * (request.stop - request.first)
        return SampleResult(self._counts(request), blocks * self._block_seconds)

    def _counts(self, request: SampleRequest) -> np.ndarray:
        """Of each image and block: most draws for a class of the image's own, the rest for the next one."""
        counts = np.zeros((len(request.names), self._num_classes), dtype=np.int64)
        for row, name in zip(counts, request.names, strict=True):
            favourite = self.favourite(name)
            share = 0.5 + 0.5 * derive_seed(0, "share", name) / 2.0**63
            for block in range(request.first, request.stop):
                counted = request.phase.counted(block)
                jitter = derive_seed(0, "jitter", name, request.phase.name, block) % 3
                top = min(counted, round(share * counted) + jitter)
                row[favourite] += top
                row[(favourite + 1) % self._num_classes] += counted - top
        return counts
