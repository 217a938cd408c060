"""One optimizer step of one worker: noise, attack, loss, gradients. What `jobs.bench train` times is this."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.data.sampling import view_seeds
from acr_ray.settings import derive_seed
from acr_ray.training.attack import HALF_SCALE, attack_noise
from acr_ray.training.methods import Batch
from acr_ray.training.noise import training_noise
from acr_ray.training.sums import Sums

if TYPE_CHECKING:
    from acr_ray.training.loop import Trainer

COMPILED_BUCKETS = 8


def step(
    trainer: Trainer, x: Tensor, y: Tensor, mine: NDArray[np.int64], inputs: int, number: int, steps: int, *,
    attacks: bool, look_first: tuple[bool, ...], sums: Sums,
) -> None:  # fmt: skip
    """Train on this worker's share of a step.

    With ``training.accumulate`` above 1 the share goes through the network in parts; the loss, and with batch norm
    in evaluation mode the gradient, is that of the whole. In training mode batch norm sees the rows of a part.

    Args:
        x: ``(B, C, H, W)`` clean images of this worker, on the CPU or the device.
        y: ``(B,)`` labels.
        mine: positions of these images in the epoch's global sequence.
        inputs: images of the step over all workers.
        number, steps: which step of how many of the epoch.
        attacks: whether the noise is attacked.
        look_first: see `attack_noise`.
        sums: gets what the epoch's record needs.
    """
    t, group, timers, epoch = trainer.recipe.training, trainer.group, trainer.timers, trainer.progress.epoch
    with timers("data"):
        x = x.to(trainer.device, non_blocking=True, memory_format=trainer.memory_format)
        y = torch.as_tensor(y).to(trainer.device, non_blocking=True)
    if trainer.leaves_to_chance:
        # Dropout draws from torch's global generator: seeded, it depends on nothing but the step and the worker.
        torch.manual_seed(derive_seed(trainer.seed, "torch", epoch, number, group.rank))
    trainer.optimizer.zero_grad(set_to_none=True)
    parts = np.array_split(np.arange(len(mine)), min(t.accumulate, len(mine)))
    for part in parts:
        rows = slice(int(part[0]), int(part[-1]) + 1)
        with timers("noise"):
            noise = training_noise(trainer.seed, epoch, mine[rows], t.m, trainer.images.shape, trainer.device)
            noise = noise.mul_(t.sigma)
        batch = Batch(
            x[rows], y[rows], noise, t.m, t.sigma, epoch + number / steps, trainer.network,
            view_seeds(trainer.seed, epoch, mine[rows], "method"), len(trainer.images.class_names),
            trainer.images.class_names,
        )  # fmt: skip
        if attacks:
            with timers("attack"):
                attacked = attack(trainer, batch, look_first)
                batch = replace(batch, noise=attacked.noise)
                sums.add_attack(attacked.active)
        with timers("forward_backward"), nullcontext() if part is parts[-1] else group.apart(trainer.model):
            found = trainer.method.loss(trainer.model, batch)
            # DDP averages workers alike; a part's share of the step's inputs makes that the mean over inputs.
            share = len(part) / inputs
            trainer.scaler.scale(found.loss * (share * group.world)).backward()
        sums.add(found, batch.repeated(batch.labels), len(part), t.m, number)
    with timers("optimizer"):
        trainer.scaler.step(trainer.optimizer)
        trainer.scaler.update()
        group.average_buffers(trainer.module)


def attack(trainer: Trainer, batch: Batch, look_first: tuple[bool, ...]):
    """The paper's attack on a batch's noise, as the recipe's hardware settings ask for it; an `Attacked`."""
    recipe = trainer.recipe
    buckets = recipe.attack.buckets
    if buckets is None:
        buckets = COMPILED_BUCKETS if recipe.training.compile else 0
    return attack_noise(
        trainer.network, batch.repeated(batch.images), batch.repeated(batch.labels), batch.noise, recipe.attack,
        buckets=buckets, look_first=look_first, scale=HALF_SCALE if recipe.training.precision == "float16" else 1.0,
    )  # fmt: skip
