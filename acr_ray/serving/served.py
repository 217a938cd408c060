"""A model at work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from acr_ray.models import ModelCard
from acr_ray.serving.asking import Reader
from acr_ray.serving.scheduler import Scheduler
from acr_ray.smoothing.lattice_law import LatticeLaw
from acr_ray.smoothing.noise import off_grid
from acr_ray.smoothing.run_noise import NoiseFacts, noise_facts


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model at work, with its own passes: of two versions no draws are ever mixed.

    Attributes:
        origin: what answers say of it beside its hash and arithmetic.
        arithmetic: how it is computed, as a certification names it.
    """

    card: ModelCard
    origin: dict[str, str]
    arithmetic: str
    sigma: float
    law: LatticeLaw | None
    reader: Reader
    scheduler: Scheduler

    def facts(self, draws: int) -> NoiseFacts:
        """What answers say of their noise; ``draws`` are all that an image may have."""
        return noise_facts(self.law, self.scheduler.device, math.prod(self.card.shape), draws)

    def rounded(self, image: Tensor) -> float:
        """How far an image ``(C, H, W)`` is rounded to the noise's grid: l2, input units."""
        return 0.0 if self.law is None else float(off_grid(image[None], self.law.levels))
