"""What a training method is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """One worker's share of an optimizer step.

    Attributes:
        images: ``(B, C, H, W)`` in [0, 1], without noise.
        labels: ``(B,)`` int64.
        noise: ``(B * m, C, H, W)``, scaled by σ, attacked where the recipe says so; image i owns the rows
            ``i * m`` to ``(i + 1) * m - 1``.
        m: noisy copies of each image.
        sigma: standard deviation of the noise.
        progress: epochs done, with the share of the current one, e.g. 12.25.
        network: the bare network, for attacks that a method makes itself; what is called here is not averaged.
    """

    images: Tensor
    labels: Tensor
    noise: Tensor
    m: int
    sigma: float
    progress: float
    network: nn.Module

    def repeated(self, values: Tensor) -> Tensor:
        """A row of ``values`` for every noisy copy: ``(B, …)`` to ``(B * m, …)``."""
        return values if self.m == 1 else values.repeat_interleave(self.m, dim=0)


@dataclass(frozen=True)
class MethodLoss:
    """A method's answer.

    Attributes:
        loss: scalar, a mean over this worker's inputs (the loop weighs workers by their share).
        logits: ``(B * m, K)`` of the noisy copies, for the accuracy that is logged.
        logs: more scalars to log as means over the epoch.
    """

    loss: Tensor
    logits: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


class Method(Protocol):
    """A training method."""

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        """The loss of a batch. ``model`` is in training mode; what it is called with enters DDP's averaging."""
        ...
