"""MACER (Zhai et al. 2020): maximising the certified radius."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from acr_ray.settings.methods import MacerSettings
from acr_ray.training.methods.base import Batch, MethodLoss, Passes
from acr_ray.training.methods.likelihood import log_mean


class Macer:
    """``mean over i of [ -log p̄_i,y_i + 1[i ∈ C]·λ·(σ/2)·max(0, γ - ξ_i) ]``.

    ``p̄_i = mean_j softmax f(x_i + δ_ij)``; with ``p̂_i = mean_j softmax(β·f(x_i + δ_ij))`` and its two largest values,
    ``ξ_i = Φ⁻¹(p̂_i,1st) - Φ⁻¹(p̂_i,2nd)``; C holds the images whose largest value is their label's and whose ξ is
    finite. As in the paper both terms are divided by all images, not by those in C, so nothing depends on how images
    are shared among workers. With ``deferred`` λ is 0 before the first drop of the learning rate.

    Cost of a step: one forward and one backward pass of each noisy copy.
    """

    def __init__(self, settings: MacerSettings, milestones: tuple[int, ...]) -> None:
        self.settings, self.starts = settings, milestones[0] if settings.deferred else 0

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        s = self.settings
        logits = model(batch.repeated(batch.images) + batch.noise)
        right = F.nll_loss(log_mean(logits, batch.m), batch.labels)
        soft = F.softmax(s.beta * logits, dim=1).unflatten(0, (-1, batch.m)).mean(dim=1)
        top, classes = soft.topk(2, dim=1)
        finite = (top[:, 0] < 1) & (top[:, 1] > 0)
        counted = (classes[:, 0] == batch.labels) & finite
        # Replaced before Φ⁻¹ is taken: a gradient of infinity times zero would be NaN. Nothing is taken out: a size
        # that depends on values makes a GPU's host wait.
        safe = torch.where(counted[:, None], top, 0.5)
        margin = torch.special.ndtri(safe[:, 0]) - torch.special.ndtri(safe[:, 1])
        hinge = ((s.gamma - margin).clamp_min(0) * counted).sum() * (batch.sigma / 2) / len(batch.images)
        weight = s.weight if batch.epoch >= self.starts else 0.0
        share = counted.double().mean()
        return MethodLoss(right + weight * hinge, logits, {"macer_hinge": hinge, "macer_counted": share})

    def passes(self, inputs: int, m: int) -> Passes:
        return Passes(inputs * m, inputs * m)
