"""The pieces of work that `benchmarks.train` times. Each runs in a process of its own, with one thread on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.data.image_set import MemorySet
from acr_ray.data.sampling import view_seeds
from acr_ray.models import build_model
from acr_ray.settings import Recipe
from acr_ray.smoothing.engine import evaluating
from acr_ray.training.attack import frozen
from acr_ray.training.graphed import capturing, recorded
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.precision import lowered_once
from acr_ray.training.step import StepInput, TrainStep
from acr_ray.training.sums import Sums
from acr_ray.training.timing import wait_for
from jobs.benchmarks.certify_works import shape_of

SEED, CLASSES, STEPS, STATISTICS = 0, 10, 1000, 12
STATE: dict[str, Any] = {}  # of this process: what it was told to set up
torch.set_num_threads(1)


def images_of(name: str, count: int) -> MemorySet:
    """Generated images whose classes differ by a coarse pattern: a network learns to tell them apart in seconds."""
    shape, generator = shape_of(name), np.random.default_rng(SEED)
    coarse = generator.uniform(0.1, 0.9, (CLASSES, shape[0], 4, 4))
    patterns = coarse.repeat(shape[1] // 4, axis=2).repeat(shape[2] // 4, axis=3)
    labels = np.arange(count) % CLASSES
    # Contrast differs from image to image, so that some stay hard, as in real data.
    contrast = generator.uniform(0.3, 1.0, (count, 1, 1, 1))
    pixels = 0.5 + (patterns[labels] - 0.5) * contrast + generator.normal(0, 0.03, (count, *shape))
    return MemorySet(
        np.clip(255 * pixels, 0, 255).astype(np.uint8),
        dataset="cifar10",
        split="train",
        labels=labels,
        names=[f"generated/{i}" for i in range(count)],
        class_names=[str(c) for c in range(CLASSES)],
        mean=(0.5,) * shape[0],
        std=(0.25,) * shape[0],
    )


def set_up(
    recipe: dict[str, Any],
    device: str,
    images: int,
    weights: dict[str, NDArray] | None = None,
    rank: int = 0,
    world: int = 1,
    port: int = 0,
) -> None:
    """Make the trainer of this process, one of ``world``; its weights are fresh or given."""
    if world > 1:
        where = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
    built = Recipe.build(recipe)
    trainer = Trainer(built, images_of(built.model.architecture, images), SEED, Group(device), device)
    trainer.module.train()
    STATE.update(trainer=trainer, device=device)
    if weights is not None:
        _reset(weights)


def learn(steps: int) -> dict[str, NDArray]:
    """Train a little without attack, so that a part of the draws is classified correctly. Returns the weights."""
    trainer: Trainer = STATE["trainer"]
    for number in range(steps):
        _our_step(number, attacks=False)
    # Running statistics have a memory of ten steps: brought up to weights that have moved fast.
    t = trainer.recipe.training
    with torch.no_grad():
        for number in range(STATISTICS):
            x = _batch(steps + number)[1].repeat_interleave(t.m, dim=0)
            noisy = (x + t.sigma * torch.randn(x.shape)).to(
                trainer.device, memory_format=trainer.networks.memory_format
            )
            trainer.networks.network(noisy)
    return weights()


def weights() -> dict[str, NDArray]:
    """This process's weights and running statistics."""
    return {name: value.detach().cpu().numpy().copy() for name, value in STATE["trainer"].module.state_dict().items()}


def ours(number: int, weights: dict[str, NDArray]) -> tuple[float, list[int], list[float]]:
    """Seconds of our step on this batch, rows still correct before each PGD step, and sums of the new weights."""
    _reset(weights)
    batch = _batch(number)  # read before the clock starts, as for the plain step
    wait_for(STATE["device"])
    started = _clock()
    active = _our_step(number, attacks=True, batch=batch)
    wait_for(STATE["device"])
    return _clock() - started, [int(a) for a in active], _mark()


def _our_step(number: int, attacks: bool, batch: tuple[NDArray[np.int64], Tensor, Tensor] | None = None) -> Tensor:
    trainer: Trainer = STATE["trainer"]
    mine, x, y = batch or _batch(number)
    sums = Sums(trainer.recipe.attack.steps, trainer.device)
    step = STATE.get("alone") or trainer.step
    step(StepInput(x, y, mine, trainer.recipe.inputs_per_step, 0, number, STEPS, attacks), sums)
    return sums.totals[3:]


def unavoidable(active: list[int]) -> float:
    """Seconds of the passes that the recipe cannot do without, and of nothing else.

    Every row that enters a PGD step goes forward, those that are correct also backward to the input; the training
    step passes every row forward and backward to the weights. Rows found wrong go forward without gradients, those
    of all PGD steps in one batch. Same precision, memory order and compiled kernels as ours, launched likewise: where
    ours are captured as CUDA graphs these are, too.
    """
    trainer: Trainer = STATE["trainer"]
    mine, x, _ = _batch(0)
    rows = len(mine) * trainer.recipe.training.m
    x = x.to(trainer.device, memory_format=trainer.networks.memory_format)
    x = x.repeat_interleave(trainer.recipe.training.m, dim=0)
    wrong = sum(a - b for a, b in zip([rows, *active[:-1]], active, strict=True))
    inputs = [x[:count].detach().clone().requires_grad_() for count in active if count]
    discarded = [x[:rows]] * (wrong // rows) + [x[: wrong % rows]] * bool(wrong % rows)

    def of_the_attack() -> None:
        with evaluating(trainer.module), frozen(trainer.module), lowered_once(trainer.networks.network):
            with torch.no_grad():
                for some in discarded:
                    trainer.networks.network(some)
            for some in inputs:
                torch.autograd.grad(trainer.networks.network(some).sum(), some)

    graphs = trainer.step._passes
    if graphs is not None:
        key = f"passes of {active}"
        if key not in STATE:
            STATE[key] = of_the_attack, _captured(of_the_attack)
        of_the_attack = STATE[key][1]
    trainer.optimizer.zero_grad(set_to_none=True)
    wait_for(STATE["device"])
    started = _clock()
    of_the_attack()
    model = trainer.networks.model if graphs is None else graphs.step()
    model(x).sum().backward()
    wait_for(STATE["device"])
    return _clock() - started


def _captured(passes: Callable[[], None]) -> Callable[[], None]:
    trainer: Trainer = STATE["trainer"]
    graph = torch.cuda.CUDAGraph()
    with capturing(trainer.passes, passes), recorded(graph):
        passes()
    return graph.replay


def plain(number: int, weights: dict[str, NDArray]) -> tuple[float, list[float]]:
    """Seconds of the same step written plainly, from the paper's pseudo-code, and sums of the new weights.

    float32, contiguous memory, every PGD step passes all samples: once to see which are still classified correctly,
    once for the gradient; what was misclassified keeps its noise.
    """
    trainer: Trainer = STATE["trainer"]
    t, a, device = trainer.recipe.training, trainer.recipe.attack, STATE["device"]
    model, optimizer = STATE.get("plain") or _plain_model()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    optimizer.state.clear()
    mine, x, y = _batch(number)
    wait_for(STATE["device"])
    started = _clock()
    x, y = x.to(device), y.to(device)
    x, y = x.repeat_interleave(t.m, dim=0), y.repeat_interleave(t.m, dim=0)
    noise = torch.randn(x.shape, device=device) * t.sigma
    delta, norm = noise.clone(), noise.flatten(1).norm(dim=1)[:, None, None, None]
    model.eval()
    for _ in range(a.steps):
        with torch.no_grad():
            right = (model(x + delta).argmax(1) == y)[:, None, None, None]
        at = delta.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(x + at), y)
        gradient = torch.autograd.grad(loss, at)[0]
        length = gradient.flatten(1).norm(dim=1)[:, None, None, None].clamp_min(1e-20)
        moved = delta + a.epsilon * gradient / length
        moved = moved * norm / moved.flatten(1).norm(dim=1)[:, None, None, None]
        delta = torch.where(right, moved, delta)
    model.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x + delta), y).backward()
    optimizer.step()
    wait_for(STATE["device"])
    seconds = _clock() - started
    return seconds, [float(p.detach().double().sum()) for p in model.parameters()]


def throughput(steps: int, way: str) -> float:
    """Noisy samples a second of this process over so many Gaussian steps, by the clock on the wall.

    Args:
        way: what it has to do with the other workers: ``shared``: all that training does; ``waiting``: it waits for
            them after each step, but keeps its gradients and statistics; ``apart``: nothing.
    """
    trainer: Trainer = STATE["trainer"]
    group = trainer.group
    if way != "shared":
        nets, shared = trainer.networks, trainer.step
        STATE["alone"] = TrainStep(
            trainer.recipe,
            replace(nets, model=nets.module),
            shared.method,
            trainer.optimizer,
            trainer.scaler,
            Hermit(trainer.device),
            trainer.timers,
            trainer.seed,
            trainer.images,
        )
    started = time.perf_counter()
    try:
        for number in range(steps):
            _our_step(number, attacks=False)
            if way == "waiting":
                torch.distributed.barrier()
        wait_for(STATE["device"])
        return steps * (trainer.recipe.training.batch_size // group.world) / (time.perf_counter() - started)
    finally:
        STATE.pop("alone", None)


class Hermit(Group):
    """Takes its share of each batch, as a worker among others does, and exchanges nothing with them."""

    def average_buffers(self, module: nn.Module) -> None:
        pass


def _plain_model() -> tuple[nn.Module, torch.optim.SGD]:
    trainer: Trainer = STATE["trainer"]
    t, images = trainer.recipe.training, trainer.images
    model = build_model(trainer.recipe.model.architecture, CLASSES, images.shape, images.mean, images.std, SEED).to(
        STATE["device"]
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=t.learning_rate, momentum=t.momentum, weight_decay=t.weight_decay
    )
    STATE["plain"] = model, optimizer
    return STATE["plain"]


def _batch(number: int) -> tuple[NDArray[np.int64], Tensor, Tensor]:
    """This process's share of a step: positions, images, labels."""
    trainer: Trainer = STATE["trainer"]
    inputs, group = trainer.recipe.inputs_per_step, trainer.group
    mine = np.arange(number * inputs, (number + 1) * inputs, dtype=np.int64)[group.rank :: group.world]
    items = mine % len(trainer.images)
    x = trainer.images.load(items, view_seeds(SEED, 0, mine))
    return mine, x, torch.from_numpy(trainer.images.labels[items])


def _reset(weights: dict[str, NDArray]) -> None:
    trainer: Trainer = STATE["trainer"]
    trainer.module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    trainer.optimizer.state.clear()


def _mark() -> list[float]:
    return [float(p.detach().double().sum()) for p in STATE["trainer"].module.parameters()]


def _clock() -> float:
    """Seconds; on a CPU of this process's own time: all work is in its one thread, and others may run beside it."""
    return time.perf_counter() if STATE["device"] == "cuda" else time.process_time()
