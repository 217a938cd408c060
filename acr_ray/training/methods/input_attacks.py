"""Attacks on the input of the soft smoothed classifier p̄(x) = mean_j softmax f(x + δ_j), noise draws kept fixed.

Cost of both: T forward and T backward passes of every noisy copy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from acr_ray.smoothing.engine import evaluating
from acr_ray.training.ascent import gradient, resized, unit, within
from acr_ray.training.methods.base import Batch
from acr_ray.training.methods.likelihood import log_mean


def pgd(batch: Batch, steps: int, step_size: float, radius: float | None = None) -> list[Tensor]:
    """Projected gradient ascent on ``-log p̄(x)_y``.

    A step adds ``step_size`` times the unit gradient, clips to [0, 1] and then, with a radius, projects into the l2
    ball around the image; scaling towards an image in [0, 1] does not leave [0, 1]. Images whose gradient is zero
    stay where they are.

    Returns:
        The images after 1, 2, …, T steps, each ``(B, C, H, W)``.
    """
    found: list[Tensor] = []
    x = batch.images
    with evaluating(batch.network):
        for _ in range(steps):
            x = (x + step_size * unit(gradient(lambda at: -_log_likelihood(batch, at)[0], x))).clamp(0, 1)
            if radius is not None:
                x = batch.images + within(x - batch.images, radius)
            found.append(x)
    return found


def ddn(batch: Batch, steps: int, gamma: float, radius: float) -> Tensor:
    """Decoupled direction and norm (Rony et al. 2019), as used on smoothed classifiers by Salman et al. (2019).

    The perturbation moves along the unit gradient of ``-log p̄(x)_y`` by a step that falls from 1 to 0.01 (cosine)
    and is then set to a norm of its own, which starts at ``radius`` and changes by the factor 1 - γ where p̄ is
    wrong, 1 + γ where it is right. The smallest perturbation seen that makes p̄ wrong is kept, at most ``radius``
    long; where none was seen, the image itself. Unlike the released code this does not round to 256 grey levels,
    and asks the mean softmax, which is what is attacked, not the majority of the copies, whether p̄ is wrong.
    """
    x = batch.images
    farthest = torch.maximum(x, 1 - x).flatten(1).norm(dim=1)[:, None, None, None]
    delta, best, smallest = torch.zeros_like(x), torch.zeros_like(x), farthest.clone()
    norm = torch.full_like(farthest, radius)
    with evaluating(batch.network):
        for step in range(steps):
            wrong = torch.empty_like(batch.labels, dtype=torch.bool)

            def objective(at: Tensor, wrong: Tensor = wrong) -> Tensor:
                right, log_p = _log_likelihood(batch, x + at)
                wrong.copy_(log_p.argmax(1) != batch.labels)
                return -right

            direction = unit(gradient(objective, delta))
            fooled = wrong[:, None, None, None]
            length = delta.flatten(1).norm(dim=1)[:, None, None, None]
            better = fooled & (length < smallest)
            best, smallest = torch.where(better, delta, best), torch.where(better, length, smallest)
            rate = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
            norm = torch.minimum(torch.where(fooled, norm * (1 - gamma), norm * (1 + gamma)), farthest)
            delta = (x + resized(delta + rate * direction, norm)).clamp(0, 1) - x
    return x + within(best, radius)


def _log_likelihood(batch: Batch, images: Tensor) -> tuple[Tensor, Tensor]:
    """log p̄ of the labels, ``(B,)``, and of all classes."""
    log_p = log_mean(batch.network(batch.repeated(images) + batch.noise), batch.m)
    return -nn.functional.nll_loss(log_p, batch.labels, reduction="none"), log_p
