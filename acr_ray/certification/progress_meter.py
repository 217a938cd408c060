"""How far a certification is, from what its counts say. Pure arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable

from acr_ray.certification.count_store import CountStore
from acr_ray.telemetry.progress import CertificationProgress

RATE_SECONDS = 4.0  # of drawing before a speed is known


class ProgressMeter:
    """Measures a run's progress since this process began.

    Args:
        store: the run's counts; what it holds now was drawn by earlier processes.
        clock: seconds that only grow.
    """

    def __init__(self, store: CountStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._before = store.noise_draws
        self._started: float | None = None

    def measure(self, samplers: int) -> CertificationProgress:
        """Return how far the run is; call it each time counts have come in.

        Args:
            samplers: that are ready.
        """
        drawn, now, done = self._store.noise_draws, self._clock(), len(self._store.finished)
        if self._started is None and drawn > self._before:  # from the first result: actors take a while to start
            self._before, self._started = drawn, now
        # Not known at once: the first results are those of the smallest tasks, while the larger are under way.
        seconds = None if self._started is None else now - self._started
        rate = (drawn - self._before) / seconds if seconds is not None and seconds >= RATE_SECONDS else 0.0
        return CertificationProgress(done, len(self._store), drawn, self._planned(drawn, done), rate, samplers)

    def _planned(self, drawn: int, done: int) -> int:
        planned = self._store.planned_draws()
        if planned is not None:
            return planned
        return round(drawn / done * len(self._store)) if done else 0
