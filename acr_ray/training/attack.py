"""Part 3 of the paper's recipe: PGD on the noise, Algorithm 1 (ADAPTIVEADV)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acr_ray.settings.recipe import AttackSettings
from acr_ray.smoothing.engine import evaluating
from acr_ray.training.ascent import norms, resized, unit


@dataclass(frozen=True)
class Attacked:
    """What the attack leaves.

    Attributes:
        noise: ``(B, C, H, W)``, each row with the l2 norm it had before.
        active: ``(T,)`` int64 on the device; rows still correct before each PGD step, so attacked in it.
    """

    noise: Tensor
    active: Tensor


def attack_noise(model: nn.Module, inputs: Tensor, labels: Tensor, noise: Tensor, settings: AttackSettings) -> Attacked:
    """Move each noise draw until its sample is misclassified, for at most T steps.

    For t = 1..T: rows with ``f(x + δ) != label`` are finished; the others make a step ``δ += ε·g/‖g‖₂``
    (``linf``: ``ε·sign(g)/√d``) with g the gradient of the cross entropy, and are scaled back to their first norm.
    A row that is misclassified leaves the batch, so the cost falls with every success: step t passes the rows that
    were correct at step t-1 forward and backward once; what the last step did is not looked at.

    The model is used in evaluation mode without gradients of its parameters; its modes, gradients and batch
    statistics are left as they were. Rows whose gradient is zero stay where they are.

    Args:
        model: unwrapped module giving logits ``(B, K)``.
        inputs: ``(B, C, H, W)`` clean inputs, a row for each noise draw.
        labels: ``(B,)`` int64.
        noise: ``(B, C, H, W)`` draws, already scaled by σ. Not changed.
        settings: T, ε and norm.
    """
    result = noise.clone()
    active = torch.zeros(settings.steps, dtype=torch.int64, device=noise.device)
    rows = torch.arange(len(noise), device=noise.device)
    lengths = norms(noise)
    with evaluating(model):
        for step in range(settings.steps):
            if len(rows) == 0:
                break
            delta = result[rows].requires_grad_()
            with torch.enable_grad():
                logits = model(inputs[rows] + delta)
                correct = logits.argmax(1) == labels[rows]
                # The sum, not the mean: a row's gradient must not depend on its batch mates.
                loss = nn.functional.cross_entropy(logits[correct], labels[rows[correct]], reduction="sum")
            rows = rows[correct]
            active[step] = len(rows)
            if len(rows) == 0:
                break
            gradient = torch.autograd.grad(loss, delta)[0][correct]
            result[rows] = resized(delta.detach()[correct] + _step(gradient, settings), lengths[rows])
    return Attacked(result, active)


def _step(gradient: Tensor, settings: AttackSettings) -> Tensor:
    if settings.norm == "linf":
        return settings.epsilon * gradient.sign() / gradient[0].numel() ** 0.5
    return settings.epsilon * unit(gradient)
