"""Predictions of noisy copies, as logarithms: nothing underflows, and no gradient is 0 times infinity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def log_mean(logits: Tensor, m: int) -> Tensor:
    """log p̄, the logarithm of the mean softmax over each image's m copies: ``(B * m, K)`` to ``(B, K)``."""
    return F.log_softmax(logits, dim=1).unflatten(0, (-1, m)).logsumexp(dim=1) - math.log(m)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) of each row of finite log-probabilities, ``(B, K)`` to ``(B,)``; gradients flow to both."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def kl_from(target: Tensor, log_q: Tensor) -> Tensor:
    """KL(target ‖ q) of each row; a target is probabilities, may hold zeros, and gets no gradient."""
    target = target.detach()
    return (torch.xlogy(target, target) - target * log_q).sum(dim=1)


def entropy(log_p: Tensor) -> Tensor:
    """H(p) of each row, in nats."""
    return -(log_p.exp() * log_p).sum(dim=1)
