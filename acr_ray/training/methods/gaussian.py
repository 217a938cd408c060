"""Gaussian noise training (Cohen, Rosenfeld & Kolter 2019), also the loss of the paper's recipe."""

from __future__ import annotations

from torch import nn

from acr_ray.training.methods.base import Batch, MethodLoss, Passes


class Gaussian:
    """``mean over images i and draws j of CE(f(x_i + δ_ij), y_i)``.

    Cost of a step: one forward and one backward pass of each noisy copy.
    """

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        logits = model(batch.repeated(batch.images) + batch.noise)
        return MethodLoss(nn.functional.cross_entropy(logits, batch.repeated(batch.labels)), logits)

    def passes(self, inputs: int, m: int) -> Passes:
        return Passes(inputs * m, inputs * m)
