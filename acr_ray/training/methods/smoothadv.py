"""SmoothAdv (Salman et al. 2019): adversarial training of the smoothed classifier."""

from __future__ import annotations

from torch import nn

from acr_ray.settings.methods import SmoothAdvSettings
from acr_ray.training.methods.base import Batch, MethodLoss, Passes
from acr_ray.training.methods.input_attacks import ddn, pgd


class SmoothAdv:
    """``mean over i, j of CE(f(x'_i + δ_ij), y_i)`` with
    ``x'_i = argmax over ‖x' - x_i‖₂ <= ε of -log mean_j softmax f(x' + δ_ij)_{y_i}``.

    The attack is T steps of PGD (length 2ε/T) or DDN; the same draws δ_ij serve attack and training. ε grows by equal
    steps over the warm-up epochs: its share in epoch e (from 0) is ``min(1, (e + 1)/warmup)``.

    Cost of a step: T + 1 forward and T + 1 backward passes of each noisy copy.
    """

    def __init__(self, settings: SmoothAdvSettings) -> None:
        self.settings = settings

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        s = self.settings
        epsilon = s.epsilon * min(1.0, (batch.epoch + 1) / s.warmup)
        if s.attack == "pgd":
            images = pgd(batch, s.steps, 2 * epsilon / s.steps, epsilon)[-1]
        else:
            images = ddn(batch, s.steps, s.gamma, epsilon)
        logits = model(batch.repeated(images) + batch.noise)
        return MethodLoss(nn.functional.cross_entropy(logits, batch.repeated(batch.labels)), logits)

    def passes(self, inputs: int, m: int) -> Passes:
        rows = inputs * m * (self.settings.steps + 1)
        return Passes(rows, rows)
