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

    T times: ``δ* += (2ε/T)·g/‖g‖₂``; project to ``‖δ* - δ‖₂ <= ε``; then ``δ* = μ + ρ·(δ* - μ*)/ρ*`` with the mean μ
    and root mean square ρ of δ over its pixels, and μ*, ρ* of ``δ*``, so that it remains plausible noise. (The released
    code names ρ a standard deviation; it is taken about zero.) This last may leave the ball by a little. Cost: T
    forward and T backward passes of every noisy copy.

    Args:
        target: ``(B, K)`` probabilities.

    Returns:
        ``(B * m, C, H, W)``.
    """
    x, target, first = batch.repeated(batch.images), batch.repeated(target), batch.noise
    mean, size = _moments(first)
    noise = first
    with evaluating(batch.network):
        for _ in range(steps):
            step = gradient(lambda at: kl_from(target, F.log_softmax(batch.network(x + at), dim=1)), noise)
            noise = first + within(noise + 2 * radius / steps * unit(step) - first, radius)
            now = _moments(noise)
            noise = (noise - now[0]) / now[1] * size + mean
    return noise


def _moments(noise: Tensor) -> tuple[Tensor, Tensor]:
    return noise.mean(dim=(1, 2, 3), keepdim=True), noise.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
