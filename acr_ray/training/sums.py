"""The running sums of an epoch on one worker: what its record is made of."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.training.methods import MethodLoss

FIXED = 3  # loss, correct predictions per copy, inputs


class Sums:
    """Kept on the device in float64 and read only when asked: reading waits for the device.

    Args:
        attack_steps: T.
        device: of the sums.
    """

    def __init__(self, attack_steps: int, device: str) -> None:
        self.totals = torch.zeros(FIXED + attack_steps, dtype=torch.float64, device=device)
        self.logs: dict[str, Tensor] = {}
        self.failed = torch.full((), -1, dtype=torch.int64, device=device)  # first step with a loss not finite

    @torch.no_grad()
    def add(self, found: MethodLoss, labels: Tensor, inputs: int, m: int, step: int) -> None:
        """A part of a step: ``labels`` ``(inputs * m,)`` are those of the noisy copies."""
        self.totals[0] += found.loss * inputs
        self.totals[1] += (found.logits.argmax(1) == labels).sum() / m
        self.totals[2] += inputs
        for name, value in found.logs.items():
            self.logs[name] = self.logs.get(name, 0) + value.detach().double() * inputs
        bad = ~torch.isfinite(found.loss.detach()) & (self.failed < 0)
        self.failed = torch.where(bad, step, self.failed)

    def add_attack(self, active: Tensor) -> None:
        self.totals[FIXED:] += active

    @property
    def names(self) -> list[str]:
        return sorted(self.logs)

    def values(self) -> NDArray[np.float64]:
        """``(FIXED + T + len(names),)``."""
        return np.array([*self.totals.tolist(), *(float(self.logs[name]) for name in self.names)])

    def restore(self, values: NDArray[np.float64], names: list[str]) -> None:
        """What `values` gave, and `names` then were."""
        device = self.totals.device
        self.totals = torch.tensor(values[: len(self.totals)], dtype=torch.float64, device=device)
        logs = values[len(self.totals) :]
        self.logs = {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in zip(names, logs, strict=True)
        }
