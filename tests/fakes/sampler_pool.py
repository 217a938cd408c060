"""Samplers that only pretend: they answer after a given time on a clock of their own, or get lost."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np

from acr_ray.certification.sampler import SampleRequest
from acr_ray.certification.sampler_pool import READY, Lost
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
        fails: Callable[[int, float], bool] = lambda hand, now: False,
        slows: Callable[[int], float] = lambda hand: 1.0,
    ) -> None:
        self.now, self.started, self.tasks = 0.0, 0, 0
        self.blocks = self.lost_blocks = 0  # sent; and of those, under way with samplers when they were released
        self._under_way: dict[int, dict[int, int]] = {}
        self._num_classes, self._block_seconds, self._start_seconds = num_classes, block_seconds, start_seconds
        self._fails, self._slows = fails, slows
        self._events: list[tuple[float, int, int, Any, Any]] = []
        self._busy_until: dict[int, float] = {}
        self._serial = 0

    def clock(self) -> float:
        return self.now

    def start(self) -> int:
        hand = self.started
        self.started += 1
        self._busy_until[hand] = self.now + self._start_seconds
        self._push(self._busy_until[hand], hand, READY, "simulated")
        return hand

    def draw(self, hand: int, draws: list[SampleRequest]) -> None:
        self.tasks += 1
        blocks = sum(len(d.names) * (d.stop - d.first) for d in draws)
        self.blocks += blocks
        self._under_way.setdefault(hand, {})[id(draws)] = blocks
        seconds = blocks * self._block_seconds * self._slows(hand)
        if self._fails(hand, self.now):
            self._push(self._busy_until[hand] + seconds / 2, hand, draws, Lost("simulated"))
            return
        self._busy_until[hand] = max(self._busy_until[hand], self.now) + seconds
        answers = [(self._counts(d), len(d.names) * (d.stop - d.first) * self._block_seconds) for d in draws]
        self._push(self._busy_until[hand], hand, draws, answers)

    def wait(self, seconds: float) -> list[tuple[int, Any, Any]]:
        if not self._events or self._events[0][0] > self.now + seconds:
            self.now += seconds
            return []
        self.now = max(self.now, self._events[0][0])
        found = []
        while self._events and self._events[0][0] <= self.now:
            _, _, hand, what, answer = heapq.heappop(self._events)
            if hand in self._busy_until:
                found.append((hand, what, answer))
                if not isinstance(answer, Lost):
                    self._under_way.get(hand, {}).pop(id(what), None)
        return found

    def release(self, hand: int) -> None:
        self._busy_until.pop(hand, None)
        self.lost_blocks += sum(self._under_way.pop(hand, {}).values())

    def _push(self, at: float, hand: int, what: Any, answer: Any) -> None:
        self._serial += 1
        heapq.heappush(self._events, (at, self._serial, hand, what, answer))

    def _counts(self, draw: SampleRequest) -> np.ndarray:
        """Of each image and block: most draws for a class of the image's own, the rest for the next one."""
        found = np.zeros((len(draw.names), self._num_classes), dtype=np.int64)
        for row, name in zip(found, draw.names, strict=True):
            favourite = derive_seed(0, "favourite", name) % self._num_classes
            share = 0.5 + 0.5 * derive_seed(0, "share", name) / 2.0**63
            for block in range(draw.first, draw.stop):
                counted = draw.phase.counted(block)
                jitter = derive_seed(0, "jitter", name, draw.phase.name, block) % 3
                top = min(counted, round(share * counted) + jitter)
                row[favourite] += top
                row[(favourite + 1) % self._num_classes] += counted - top
        return found
