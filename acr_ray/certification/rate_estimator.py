"""How fast a sampler draws, and so how large a task should be. Pure arithmetic; counts don't depend on it."""

from __future__ import annotations

TASK_SECONDS = 1.0  # what a task should take at least: short enough to lose little with an actor
TASKS_PER_SECOND = 25  # what the coordinator should have to handle at most, whatever the number of actors


class RateEstimator:
    """Estimates one sampler's speed from the tasks that came back.

    Args:
        first_size: noise draws of a task while no speed is known.

    Attributes:
        rate: noise draws a second of one sampler; 0 until a task is done.
    """

    def __init__(self, first_size: int) -> None:
        self._first_size, self.rate = first_size, 0.0

    def observe(self, noise_draws: int, seconds: float) -> None:
        """Take a task's speed into account."""
        rate = noise_draws / max(seconds, 1e-6)
        # Half way there each time: the first task of an actor is slow, and one odd task should not matter.
        self.rate = rate if not self.rate else (self.rate + min(rate, 4 * self.rate)) / 2

    def task_size(self, samplers: int) -> int:
        """Return the noise draws of a task, so many that a pool of this size does not overrun the coordinator."""
        seconds = max(TASK_SECONDS, samplers / TASKS_PER_SECOND)
        return self._first_size if not self.rate else max(1, int(self.rate * seconds))

    def seconds_for(self, noise_draws: int) -> float:
        """Return the seconds that so many noise draws usually take; infinite while no speed is known."""
        return noise_draws / self.rate if self.rate else float("inf")
