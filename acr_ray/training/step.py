"""One optimizer step of one worker: noise, attack, loss, gradients. What `jobs.bench train` times is this."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.data import ImageSet
from acr_ray.data.sampling import view_seeds
from acr_ray.settings import Recipe, derive_seed
from acr_ray.training.attack import HALF_SCALE, Attacked, attack_noise
from acr_ray.training.graphed import GraphedAttack
from acr_ray.training.graphed_passes import GraphedPasses
from acr_ray.training.group import Group
from acr_ray.training.methods import Batch, Method
from acr_ray.training.networks import Networks
from acr_ray.training.noise import LatticeTrainingNoise, lattice_law, training_noise
from acr_ray.training.sums import Sums
from acr_ray.training.timing import Timers

COMPILED_BUCKETS = 8


@dataclass(frozen=True)
class StepInput:
    """One worker's share of a step.

    Attributes:
        images: ``(B, C, H, W)`` clean images, on the CPU or the device.
        labels: ``(B,)``.
        positions: ``(B,)`` places of these images in the epoch's global sequence.
        inputs: images of the step over all workers.
        epoch: from 0.
        number, steps: which step of how many of the epoch.
        attacks: whether the noise is attacked.
        look_first: see `attack_noise`.
    """

    images: Tensor
    labels: Tensor
    positions: NDArray[np.int64]
    inputs: int
    epoch: int = 0
    number: int = 0
    steps: int = 1
    attacks: bool = False
    look_first: tuple[bool, ...] = ()


class TrainStep:
    """Trains on one worker's share of a step at a time.

    With ``training.accumulate`` above 1 the share goes through the network in parts; the loss, and with batch norm
    in evaluation mode the gradient, is that of the whole. In training mode batch norm sees the rows of a part.

    Args:
        recipe: its ``training`` and ``attack`` sections are used.
        networks: what learns.
        method: gives the loss.
        optimizer, scaler: of the networks' weights.
        group: the workers.
        timers: get the seconds of each part of a step.
        seed: of the run.
        images: their shape and number of classes are used.
    """

    def __init__(
        self,
        recipe: Recipe,
        networks: Networks,
        method: Method,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        group: Group,
        timers: Timers,
        seed: int,
        images: ImageSet,
    ) -> None:
        self.recipe, self.networks, self.method, self.seed = recipe, networks, method, seed
        self.optimizer, self.scaler, self.group, self.timers = optimizer, scaler, group, timers
        self.shape, self.class_names = images.shape, images.class_names
        t = recipe.training
        law = lattice_law(recipe, images)
        self._lattice = None if law is None else LatticeTrainingNoise(law, networks.device)
        self._scale = HALF_SCALE if t.precision == "float16" else 1.0
        # As part of compiling: it passes more rows, so what it answers can differ in the last bits.
        self._graphed = None
        if networks.captures and not recipe.attack.buckets:
            self._graphed = GraphedAttack(networks.network, recipe.attack, self._scale, networks.passes)
        # Parts of a step would overwrite each other's gradients, and DDP would not see them.
        alone = group.world == 1 and t.accumulate == 1 and not networks.uses_torch_rng
        self._passes = GraphedPasses(networks.model, networks.passes) if networks.captures and alone else None

    def __call__(self, given: StepInput, sums: Sums) -> None:
        """One optimizer step; ``sums`` gets what the epoch's record needs."""
        nets, group, timers, t = self.networks, self.group, self.timers, self.recipe.training
        with timers("data"):
            x = given.images.to(nets.device, non_blocking=True, memory_format=nets.memory_format)
            y = torch.as_tensor(given.labels).to(nets.device, non_blocking=True)
        if nets.uses_torch_rng:
            # Dropout draws from torch's global generator: seeded, it depends on nothing but the step and the worker.
            torch.manual_seed(derive_seed(self.seed, "torch", given.epoch, given.number, group.rank))
        self.optimizer.zero_grad(set_to_none=True)
        # As many parts on every worker, whose shares may differ by one: synchronised batch norm waits in each of them.
        parts = np.array_split(np.arange(len(given.positions)), min(t.accumulate, given.inputs // group.world))
        for part in parts:
            rows = slice(int(part[0]), int(part[-1]) + 1)
            batch = self._batch(given, x[rows], y[rows], given.positions[rows])
            if given.attacks:
                with timers("attack"):
                    attacked = self.attack(batch, given.look_first)
                    batch = replace(batch, noise=attacked.noise)
                    sums.add_attack(attacked.active)
            last = part is parts[-1]
            with timers("forward_backward"), nullcontext() if last else group.no_gradient_sync(nets.parallel):
                model = nets.model if self._passes is None else self._passes.step()
                found = self.method.loss(model, batch)
                # DDP averages workers alike; a part's share of the step's inputs makes that the mean over inputs.
                share = len(part) / given.inputs
                self.scaler.scale(found.loss * (share * group.world)).backward()
            sums.add(found, batch.repeated(batch.labels), len(part), t.m, given.number)
        with timers("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            group.average_buffers(nets.module)

    def attack(self, batch: Batch, look_first: tuple[bool, ...] = ()) -> Attacked:
        """The paper's attack on a batch's noise, as the recipe's hardware settings ask for it."""
        recipe = self.recipe
        if self._graphed is not None:
            return self._graphed(batch.repeated(batch.images), batch.repeated(batch.labels), batch.noise)
        buckets = recipe.attack.buckets
        if buckets is None:
            buckets = COMPILED_BUCKETS if recipe.training.compile else 0
        return attack_noise(
            self.networks.network,
            batch.repeated(batch.images),
            batch.repeated(batch.labels),
            batch.noise,
            recipe.attack,
            buckets=buckets,
            look_first=look_first,
            scale=self._scale,
        )

    def _batch(self, given: StepInput, x: Tensor, y: Tensor, positions: NDArray[np.int64]) -> Batch:
        t, device = self.recipe.training, self.networks.device
        with self.timers("noise"):
            if self._lattice is None:
                noise = training_noise(self.seed, given.epoch, positions, t.m, self.shape, device).mul_(t.sigma)
            else:
                noise = self._lattice(self.seed, given.epoch, positions, t.m, self.shape)
        seeds = view_seeds(self.seed, given.epoch, positions, "method")
        progress = given.epoch + given.number / given.steps
        names = self.class_names
        return Batch(x, y, noise, t.m, t.sigma, progress, self.networks.network, seeds, len(names), names)
