"""What all attacks share, on inputs and on noise: gradients, unit steps and l2 balls, one row at a time.

Attacks use the bare network in evaluation mode. `gradient` asks autograd for the attacked tensor alone: gradients
of the network's parameters are neither computed nor accumulated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def norms(values: Tensor) -> Tensor:
    """l2 norm of each row, ``(B, C, H, W)`` to ``(B, 1, 1, 1)``."""
    return values.flatten(1).norm(dim=1)[:, None, None, None]


def unit(values: Tensor) -> Tensor:
    """Rows of norm 1; rows of zeros stay zeros."""
    length = norms(values)
    return values / torch.where(length > 0, length, 1.0)


def resized(values: Tensor, length: Tensor) -> Tensor:
    """Rows scaled to these norms, ``(B, 1, 1, 1)``; rows of zeros stay zeros."""
    return unit(values) * length


def within(values: Tensor, radius: float) -> Tensor:
    """Rows longer than ``radius`` scaled down to it."""
    return values * (radius / norms(values).clamp_min(torch.finfo(values.dtype).tiny)).clamp_max(1.0)


def gradient(objective: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Gradient of each row's objective with respect to that row.

    Args:
        objective: ``(B, …)`` to ``(B',)``, every value a function of one row. They are summed, not averaged: a
            row's gradient must not depend on its batch mates.
        at: ``(B, …)``, not changed.

    Returns:
        Like ``at``; 0 where a derivative is not finite, as in float16 before batch statistics are known: an attack
        leaves such a value where it is, as `attack_noise` does. That a network is broken its loss tells.
    """
    at = at.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(objective(at).sum(), at)[0].nan_to_num(0.0, 0.0, 0.0)
