"""The attack on the noise that CAT-RS trains against; the paper's own is acr_ray.training.attack."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from acr_ray.smoothing.engine import evaluating
from acr_ray.training.ascent import gradient, unit, within
from acr_ray.training.methods.base import Batch
from acr_ray.training.methods.likelihood import kl_from


def worst_noise(batch: Batch, target: Tensor, steps: int, radius: float) -> Tensor:
    """Noise near each draw that makes the prediction least like the target: PGD on ``KL(target ‖ f(x + δ*))``.

    T times: ``δ* += (2ε/T)·g/‖g‖₂``; project to ``‖δ* - δ‖₂ <= ε``; shift and scale ``δ*`` to the mean and standard
    deviation (over its pixels) that δ had, so that it remains plausible noise. This last may leave the ball by a
    little. Cost: T forward and T backward passes of every noisy copy.

    Args:
        target: ``(B, K)`` probabilities.

    Returns:
        ``(B * m, C, H, W)``.
    """
    x, target, first = batch.repeated(batch.images), batch.repeated(target), batch.noise
    mean, std = _moments(first)
    noise = first
    with evaluating(batch.network):
        for _ in range(steps):
            step = gradient(lambda at: kl_from(target, F.log_softmax(batch.network(x + at), dim=1)), noise)
            noise = first + within(noise + 2 * radius / steps * unit(step) - first, radius)
            now = _moments(noise)
            noise = (noise - now[0]) / now[1] * std + mean
    return noise


def _moments(noise: Tensor) -> tuple[Tensor, Tensor]:
    return noise.mean(dim=(1, 2, 3), keepdim=True), noise.std(dim=(1, 2, 3), correction=0, keepdim=True)
