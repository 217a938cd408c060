"""SmoothMix (Jeong et al. 2021): less certain predictions between an input and its adversary."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from acr_ray.settings.methods import SmoothMixSettings
from acr_ray.training.ascent import within
from acr_ray.training.methods.base import Batch, MethodLoss, Passes
from acr_ray.training.methods.input_attacks import pgd
from acr_ray.training.methods.likelihood import kl, log_mean


class SmoothMix:
    """``mean over i, j of [ CE(f(x_i + δ_ij), y_i) + η·w·1[argmax p̄_i = y_i]·KL(t_i ‖ f(x_mix,i + δ_ij)) ]``.

    ``x̃_i``: T steps of length α up ``-log p̄(x)_y``, kept in [0, 1] and otherwise free; ``λ_i ~ U[0, 1/2)``;
    ``x_mix = (1 - λ)·x + λ·x̃``; ``t = (1 - λ)·p̄ + λ·uniform`` with ``p̄_i = mean_j softmax f(x_i + δ_ij)``. Gradients
    flow through t, as in the authors' code. ``w = min(1, (e + 1)/warmup)`` in epoch e. With ``one_step`` the clean side
    x is the adversary after one step, at most w·α away from the image.

    Cost of a step: T + 2 forward and T + 2 backward passes of each noisy copy.
    """

    def __init__(self, settings: SmoothMixSettings) -> None:
        self.settings = settings

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        s = self.settings
        warm = min(1.0, (batch.epoch + 1) / s.warmup)
        attacked = pgd(batch, s.steps, s.step_size)
        x = batch.images
        if s.one_step:
            x = x + within(attacked[0] - x, warm * s.step_size)
        logits = model(batch.repeated(x) + batch.noise)
        average = log_mean(logits, batch.m)
        share = batch.uniforms(1) / 2
        mixed = torch.lerp(x, attacked[-1], share[:, :, None, None])
        target = torch.logaddexp(
            torch.log1p(-share) + average, (share.log() - math.log(average.shape[1])).expand_as(average)
        )
        mixed_logits = model(batch.repeated(mixed) + batch.noise)
        likeness = kl(batch.repeated(target), F.log_softmax(mixed_logits, dim=1))
        correct = batch.repeated(average.argmax(1) == batch.labels)
        mix = (correct * likeness).mean()
        right = F.cross_entropy(logits, batch.repeated(batch.labels))
        return MethodLoss(right + s.eta * warm * mix, logits, {"smoothmix_kl": mix})

    def passes(self, inputs: int, m: int) -> Passes:
        rows = inputs * m * (self.settings.steps + 2)
        return Passes(rows, rows)
