"""What workers tell each other between steps, about once a second: requests, and whether a loss has failed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from acr_ray.training.control.messages import Request
from acr_ray.training.group import Group

MOST_STEPS = 10_000


class WorkerSync:
    """All workers ask at the same steps and get the same answer, so they save and stop together.

    Reading a GPU's flag makes the host wait for it; once a second that is nothing, each step it would be a lot.

    Args:
        group: the workers.
        requests: this worker's requests; not forgotten by being asked.
        seconds: about how often.
    """

    def __init__(
        self, group: Group, requests: Callable[[], Request] = lambda: Request(0), seconds: float = 1.0
    ) -> None:
        self.group, self.requests, self.seconds = group, requests, seconds
        self._next, self._step, self._time = 0, 0, time.monotonic()

    def begin(self, step: int) -> None:
        """An epoch begins at this step: ask there."""
        self._next = self._step = step
        self._time = time.monotonic()

    def due(self, step: int) -> bool:
        """Return whether to ask before this step; the same on every worker."""
        return step >= self._next

    def ask(self, step: int, failed: torch.Tensor) -> tuple[Request, int]:
        """Return all workers' requests, and the first step whose loss was not finite on any of them, -1: none.

        Args:
            failed: int64 scalar on the device: this worker's first such step, or -1.
        """
        now = time.monotonic()
        # Rank 0's clock decides for all when to ask again.
        each = (now - self._time) / max(step - self._step, 1)
        wait = int(np.clip(self.seconds / max(each, 1e-6), 1, MOST_STEPS)) if step > self._step else 1
        own = np.array([self.requests(), int(failed), wait], dtype=np.float64)
        answers = self.group.gather(own).astype(np.int64)
        self._step, self._time, self._next = step, now, step + int(answers[0, 2])
        failures = answers[answers[:, 1] >= 0, 1]
        requests = Request(int(np.bitwise_or.reduce(answers[:, 0])))
        return requests, int(failures.min()) if len(failures) else -1
