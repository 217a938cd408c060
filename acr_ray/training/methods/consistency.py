"""Consistency regularization (Jeong & Shin 2020)."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from acr_ray.settings.methods import ConsistencySettings
from acr_ray.training.methods.base import Batch, MethodLoss, Passes
from acr_ray.training.methods.likelihood import entropy, kl, log_mean


class Consistency:
    """``mean over i of [ mean_j CE(p_ij, y_i) + λ·mean_j KL(p̄_i ‖ p_ij) + η·H(p̄_i) ]``.

    ``p_ij = softmax f(x_i + δ_ij)``, ``p̄_i = mean_j p_ij``, H the entropy. Gradients flow through p̄ as well. With
    m = 1 the middle term is zero.

    Cost of a step: one forward and one backward pass of each noisy copy.
    """

    def __init__(self, settings: ConsistencySettings) -> None:
        self.settings = settings

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        logits = model(batch.repeated(batch.images) + batch.noise)
        average = log_mean(logits, batch.m)
        likeness = kl(batch.repeated(average), F.log_softmax(logits, dim=1)).mean()
        spread = entropy(average).mean()
        right = F.cross_entropy(logits, batch.repeated(batch.labels))
        loss = right + self.settings.weight * likeness + self.settings.eta * spread
        return MethodLoss(loss, logits, {"consistency_kl": likeness, "consistency_entropy": spread})

    def passes(self, inputs: int, m: int) -> Passes:
        return Passes(inputs * m, inputs * m)
