"""What a run would do and about how long it would take, from the recipe and a measured step; nothing is trained."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from acr_ray.data import ImageSet
from acr_ray.data.sampling import steps, view_seeds
from acr_ray.settings import Recipe
from acr_ray.training.attack import attack_noise
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer, inputs_at_a_time
from acr_ray.training.noise import training_noise
from acr_ray.training.pass_counts import attack_passes, reweigh_passes, reweighings, whole_blocks
from acr_ray.training.step import StepInput
from acr_ray.training.sums import Sums
from acr_ray.training.timing import wait_for

CPU_VALUES = 16 * 3 * 224 * 224  # numbers in the measured step's batch on a CPU, at most


@dataclass(frozen=True)
class Plan:
    """Counts of a whole run, over all workers.

    Attributes:
        steps_an_epoch: optimizer steps.
        rows: noisy samples trained on, in all epochs: each once forward and once backward, at the method's own rate.
        attack_rows: most rows that PGD passes forward and backward: all draws still correct at every step.
        p_a_rows: most forward passes of p_A estimates: none discarded.
    """

    steps_an_epoch: int
    rows: int
    attack_rows: int
    p_a_rows: int


def plan_of(recipe: Recipe, images: int) -> Plan:
    """Count what a run on so many training images does."""
    t, copies = recipe.training, images * recipe.training.m
    attacks = t.epochs - t.e_t if recipe.attack.enabled else 0
    attack = attacks * attack_passes(copies, [1.0] * recipe.attack.steps, ()).forward
    # Another checkpoint's estimates are drawn, too, if not by the network that is trained.
    drawn = recipe.discard.enabled and recipe.discard.p_a_file is None
    discard = whole_blocks(recipe.discard.draws) * images if drawn else 0
    reweigh = len(reweighings(recipe)) * reweigh_passes(recipe, images).forward
    return Plan(len(steps(images, recipe.inputs_per_step)), t.epochs * copies, attack, discard + reweigh)


@dataclass(frozen=True)
class Measured:
    """One worker's speed.

    Attributes:
        device: what was measured.
        rows: noisy samples of the measured step.
        train: seconds a noisy sample trained on, with the method's own passes.
        attack: seconds a row of one PGD step.
        p_a: seconds a forward pass of a p_A estimate.
        load: seconds an image read, decoded and cropped by one process.
        parameters: of the network.
        state_mb: weights, gradients and momentum.
        row_mb: more memory for each noisy sample of a step, by the measured step's peak; 0 where it was too small to
            be seen.
    """

    device: str
    rows: int
    train: float
    attack: float
    p_a: float
    load: float
    parameters: int
    state_mb: float
    row_mb: float


def inputs_measured(recipe: Recipe, images: ImageSet, device: str, workers: int) -> int:
    """Return how many images the measured step has: on a GPU all that one worker passes at a time in the run."""
    t = recipe.training
    most = inputs_at_a_time(recipe, workers)
    if torch.device(device).type == "cpu":
        most = min(recipe.inputs_per_step, CPU_VALUES // int(np.prod(images.shape)) // t.m)
    return max(1, min(most, len(images)))


def measure(recipe: Recipe, images: ImageSet, device: str, workers: int = 1) -> Measured:
    """Time a small step of this recipe on real images. On a GPU the step is a worker's share at its full size.

    Args:
        workers: that share a step of the run.
    """
    t, inputs = recipe.training, inputs_measured(recipe, images, device, workers)
    small = recipe.change({"training.batch_size": inputs * t.m, "training.accumulate": 1, "data.decode": "cpu"})
    some = images.subset(np.arange(inputs))
    started = time.perf_counter()
    x = some.load(np.arange(inputs), view_seeds(0, 0, np.arange(inputs)))
    load = (time.perf_counter() - started) / inputs
    trainer = Trainer(small, some, 0, Group(device), device)
    state = 3 * sum(p.numel() * p.element_size() for p in trainer.module.parameters()) / 1e6
    y, mine = torch.from_numpy(some.labels), np.arange(inputs)

    def train(inputs: int = inputs) -> None:
        trainer.module.train()
        sums = Sums(recipe.attack.steps, device)
        trainer.step(StepInput(x[:inputs], y[:inputs], mine[:inputs], inputs), sums)

    rows, half = inputs * t.m, max(1, inputs // 2)
    train(half)
    row_mb = -_memory(device)
    train()
    row_mb = max(0.0, row_mb + _memory(device)) / max(1, (inputs - half) * t.m)
    noise = training_noise(0, 0, mine, t.m, some.shape, device).mul_(t.sigma)
    repeated = x.to(device).repeat_interleave(t.m, dim=0)
    labels = trainer.networks.network(repeated + noise).argmax(1)  # all correct: the attack's full cost
    one = recipe.attack.model_copy(update={"steps": 1})
    works: dict[str, Callable[[], object]] = {
        "train": train,
        "attack": lambda: attack_noise(trainer.networks.network, repeated, labels, noise, one),
        "p_a": lambda: trainer.engine.predictions(x[:1], [0], rows),
    }
    seconds = {}
    for name, work in works.items():
        work()
        seconds[name] = min(_seconds(work, device) for _ in range(2)) / rows
    parameters = sum(p.numel() for p in trainer.module.parameters())
    return Measured(device, rows, **seconds, load=load, parameters=parameters, state_mb=state, row_mb=row_mb)


def _seconds(work, device: str) -> float:
    wait_for(device)
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def _memory(device: str) -> float:
    """The peak so far in MB: of the device's allocator, or of this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
