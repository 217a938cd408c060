"""How far a certification is, for progress lines and metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CertificationProgress:
    """How far a certification is.

    Attributes:
        images_done, images: certified, and to certify.
        noise_draws: counted so far.
        noise_draws_planned: an estimate if images stop at their own time; 0 while nothing is known.
        rate: noise draws a second since the first result, all actors; 0 in the first seconds.
        actors: samplers that are ready.
    """

    images_done: int
    images: int
    noise_draws: int
    noise_draws_planned: int
    rate: float
    actors: int

    @property
    def seconds_left(self) -> float:
        """Estimate of the time left; infinite while it is not known."""
        left = self.noise_draws_planned - self.noise_draws
        return left / self.rate if self.rate > 0 and self.noise_draws_planned else float("inf")
