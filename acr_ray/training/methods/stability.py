"""Stability training (Zheng et al. 2016), with Gaussian noise as Li et al. (2019) use it for certified robustness."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from acr_ray.settings.methods import StabilitySettings
from acr_ray.training.methods.base import Batch, MethodLoss, Passes
from acr_ray.training.methods.likelihood import entropy, kl


class Stability:
    """``mean over i of [ CE(f(x_i), y_i) + λ·mean_j -Σ_c p_ic·log p_ijc ]``.

    ``p_i = softmax f(x_i)`` is the clean prediction, ``p_ij = softmax f(x_i + δ_ij)`` a noisy one. The second term is
    ``KL(p_i ‖ p_ij) + H(p_i)``: noisy predictions like the clean one, and that one certain. Gradients flow through
    both. The clean images are a batch of their own to batch norm, before the noisy ones.

    Cost of a step: one forward and one backward pass of each image and of each noisy copy.
    """

    def __init__(self, settings: StabilitySettings) -> None:
        self.settings = settings

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        clean_logits = model(batch.images)
        logits = model(batch.repeated(batch.images) + batch.noise)
        clean = F.log_softmax(clean_logits, dim=1)
        stable = (kl(batch.repeated(clean), F.log_softmax(logits, dim=1)) + batch.repeated(entropy(clean))).mean()
        right = F.cross_entropy(clean_logits, batch.labels)
        return MethodLoss(right + self.settings.weight * stable, logits, {"stability": stable})

    def passes(self, inputs: int, m: int) -> Passes:
        return Passes(inputs * (m + 1), inputs * (m + 1))
