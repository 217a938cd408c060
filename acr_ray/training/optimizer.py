"""SGD and its learning rate."""

from __future__ import annotations

import torch
from torch import nn

from acr_ray.settings.recipe import TrainingSettings

REFERENCE_BATCH = 256  # of the paper's learning rate


def build_optimizer(module: nn.Module, training: TrainingSettings, device: str) -> torch.optim.SGD:
    """Build SGD as the recipe says; one kernel for all parameters on a GPU.

    On a CPU torch's plain loop is kept: its fused kernel may round otherwise, and runs there are promised bit for bit.
    """
    fused = torch.device(device).type == "cuda"
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=training.first_learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        fused=fused or None,
    )
    if fused and training.momentum:
        begin_momentum(optimizer)
    return optimizer


def begin_momentum(optimizer: torch.optim.SGD) -> None:
    """Begin momentum at 0, which the first step turns into the gradient, as torch begins it.

    The fused kernel takes new memory for it and writes there; but if the first gradients have overflowed in float16,
    the scaler has it write nothing, and the next step reads what was in that memory before.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def learning_rate(training: TrainingSettings, epoch: int, step: int | None = None, steps: int = 1) -> float:
    """The learning rate of a step; without a step, the epoch's own, after its warm-up.

    ``learning_rate · lr_decay^(milestones passed)``, the paper's; of weights that were trained before, see
    `TrainingSettings.first_learning_rate`; with ``scale_learning_rate`` times
    ``batch_size/256``; in the first ``warmup_epochs`` rising linearly by steps, from one step's share to all of it
    (Goyal et al. 2017).

    Args:
        step: optimizer step of the epoch, from 0.
        steps: steps of an epoch.
    """
    passed = sum(epoch >= milestone for milestone in training.milestones)
    rate = training.first_learning_rate * training.lr_decay**passed
    if training.scale_learning_rate:
        rate *= training.batch_size / REFERENCE_BATCH
    if step is None or epoch >= training.warmup_epochs:
        return rate
    return rate * (epoch * steps + step + 1) / (training.warmup_epochs * steps)
