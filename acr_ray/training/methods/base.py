"""What a training method is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.data.chance import uniforms


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
        seeds: int64 ``(B,)``, one for each image and step, whoever trains on it: all that a method leaves to chance
            comes from them, so that it is the same for any number of workers and after a resume.
        classes: K, the number of classes.
        class_names: name of each; empty where nobody says it.
    """

    images: Tensor
    labels: Tensor
    noise: Tensor
    m: int
    sigma: float
    progress: float
    network: nn.Module
    seeds: NDArray[np.int64]
    classes: int
    class_names: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return int(self.progress)

    def uniforms(self, draws: int) -> Tensor:
        """Random numbers in [0, 1) from the seeds, ``(B, draws)``; the same at every call."""
        drawn = torch.from_numpy(uniforms(self.seeds, draws))
        # A float64 just below 1 would be rounded to a float32 that is 1.
        return drawn.to(self.images.dtype).clamp_max_(1 - torch.finfo(self.images.dtype).eps).to(self.images.device)

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


@dataclass(frozen=True)
class Passes:
    """Rows passed through the network."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward)

    @property
    def total(self) -> int:
        """Forward and backward together."""
        return self.forward + self.backward


class Method(Protocol):
    """A training method.

    The methods here are a `CountedMethod` each; a user's own class need not be.
    """

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        """The loss of a batch. ``model`` is in training mode; what it is called with enters DDP's averaging."""
        ...


class CountedMethod(Method, Protocol):
    """A method that knows what it costs, as tested against what is counted."""

    def passes(self, inputs: int, m: int) -> Passes:
        """Return the rows of a step of that many inputs, each with ``m`` noisy copies, its own attacks included."""
        ...
