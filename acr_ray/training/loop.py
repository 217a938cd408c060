"""The one training loop, for every method. Plain PyTorch: no Ray, no MLflow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from acr_ray.data import ImageSet, batches
from acr_ray.data.device_decoding import DeviceDecoder, decoding_problem
from acr_ray.data.sampling import draw_epoch, share, steps, view_seeds
from acr_ray.settings import Recipe, UserError, digest
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.training.attack import worth_looking
from acr_ray.training.checkpoint import Partial, Progress, load_state, save_state
from acr_ray.training.control.messages import Request
from acr_ray.training.control.worker_sync import WorkerSync
from acr_ray.training.errors import TrainingStopped
from acr_ray.training.graphed_passes import GraphedForward
from acr_ray.training.group import Group
from acr_ray.training.methods import build_method
from acr_ray.training.named_files import Contents
from acr_ray.training.networks import build_networks
from acr_ray.training.noise import lattice_law
from acr_ray.training.optimizer import build_optimizer, learning_rate
from acr_ray.training.precision import gradient_scaler
from acr_ray.training.selection import SampleSelection
from acr_ray.training.step import StepInput, TrainStep
from acr_ray.training.sums import FIXED, Sums
from acr_ray.training.timing import Timers

__all__ = ["Hooks", "Trainer", "TrainingStopped", "check_workers"]


def check_workers(recipe: Recipe, images: int, workers: int) -> None:
    """Raises UserError where a step has fewer inputs than there are workers."""
    smallest = min(s.stop - s.start for s in steps(images, recipe.inputs_per_step))
    if smallest < workers:
        raise UserError(
            f"--workers {workers}: a step has only {smallest} inputs to share (batch_size/m); "
            f"allowed: 1 to {smallest}, or a larger training.batch_size"
        )


def check_decoding(recipe: Recipe, images: ImageSet, on_gpu: bool) -> None:
    """Raises UserError where images are to be decoded on a GPU, and there is none or it cannot decode them."""
    if recipe.data.decode == "gpu":
        no_gpu = "data.decode = gpu: the workers have no GPU; give --gpus-per-worker 1, or leave it out"
        if problem := decoding_problem(images) if on_gpu else no_gpu:
            raise UserError(problem)


def inputs_at_a_time(recipe: Recipe, workers: int) -> int:
    """Return how many inputs of a step one of so many workers passes through the network at a time, at most."""
    return -(-recipe.inputs_per_step // (workers * recipe.training.accumulate))


def out_of_memory(recipe: Recipe, workers: int) -> str:
    """Return what a full GPU is answered with: the setting to change, and what it is now."""
    t = recipe.training
    rows = inputs_at_a_time(recipe, workers) * t.m
    return (
        f"the GPU's memory is full: {rows} noise draws pass the network at a time. Raise training.accumulate (now "
        f"{t.accumulate}: the same batch in more parts), or lower training.batch_size (now {t.batch_size}); with "
        "--overwrite, since either makes it another run"
    )


def _nothing(*given: Any) -> None:
    pass


@dataclass(frozen=True)
class Hooks:
    """What else happens while a trainer trains.

    Attributes:
        after_step: called with epoch and number of each step after it, e.g. by a profiler.
        between_steps: called on every worker with the requests that `WorkerSync` has found, if there are any;
            ``progress.partial`` then says how far the epoch is, so a checkpoint saved there goes on at that step.
        after_epoch: called on every worker after each epoch.
    """

    after_step: Callable[[int, int], None] = _nothing
    between_steps: Callable[[Request], None] = _nothing
    after_epoch: Callable[[], None] = _nothing


class Trainer:
    """A recipe at work on one worker.

    Args:
        recipe: what to train.
        images: the training split.
        seed: of initial weights, order of samples, views and noise.
        group: the workers; all must be given the same recipe, images and seed.
        device: ``"cpu"`` or a CUDA device.
        contents: of what the recipe names by path, see `check_named`; none: whatever lies there.
        identity: of the checkpoints that this run writes and reads; none: the recipe's own.
        worker_sync: asked between steps; one with requests of its own can save or stop within an epoch.

    The sequence of global batches, views and noise does not depend on the number of workers.

    Attributes:
        networks: what is trained, see `Networks`.
        module: the bare network in float32: what is saved.
        progress: how far the run is.
        step, selection, engine, timers, passes: what it is made of.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: ImageSet,
        seed: int,
        group: Group,
        device: str = "cpu",
        contents: Contents | None = None,
        identity: str | None = None,
        worker_sync: WorkerSync | None = None,
    ) -> None:
        check_workers(recipe, len(images), group.world)
        check_decoding(recipe, images, torch.device(device).type == "cuda")
        self.recipe, self.images, self.seed, self.group, self.device = recipe, images, seed, group, device
        self.networks = build_networks(recipe, images, seed, group, device, contents or {})
        self.module, self.passes = self.networks.module, self.networks.passes
        self._decoder = DeviceDecoder(images, device) if recipe.data.decode == "gpu" else None
        self.optimizer = build_optimizer(self.module, recipe.training, device)
        self.scaler = gradient_scaler(recipe.training.precision, device)
        self.identity = identity or digest(recipe.identity(contents))
        law, sigma = lattice_law(recipe, images), recipe.training.sigma
        levels = None if law is None else law.levels
        network = self.networks.network
        if self.networks.captures:
            network = GraphedForward(network, self.passes)
        self.engine = SamplingEngine(network, len(images.class_names), sigma, device, levels)
        self.progress, self.timers, self.worker_sync = Progress(), Timers(device), worker_sync or WorkerSync(group)
        self.step = TrainStep(
            recipe, self.networks, build_method(recipe), self.optimizer, self.scaler, group, self.timers, seed, images
        )
        self.selection = SampleSelection(
            recipe, images, seed, group, self.networks, self.engine, self.timers, contents or {}
        )

    def save(self, folder: Path) -> None:
        save_state(folder, self.module, self.optimizer, self.progress, self.identity, self.scaler)

    def load(self, folder: Path, identity: str | None = None) -> None:
        """Go on from a checkpoint of this run, or, to fork, of the run whose ``identity`` is given."""
        self.progress = load_state(folder, self.module, self.optimizer, identity or self.identity, self.scaler)

    def run(self, hooks: Hooks = Hooks(), until: int | None = None) -> None:  # noqa: B008 - frozen
        """Train the epochs that are left, up to ``until`` where given.

        Raises:
            TrainingStopped: a loss or a weight is not finite, the GPU's memory is full, or nothing is left to train on.
        """
        last = self.recipe.training.epochs if until is None else min(until, self.recipe.training.epochs)
        while self.progress.epoch < last:
            try:
                record = self.epoch(hooks)
            except torch.OutOfMemoryError as error:
                raise TrainingStopped(out_of_memory(self.recipe, self.group.world)) from error
            self.progress.history.append(record)
            self.progress.epoch += 1
            hooks.after_epoch()

    def epoch(self, hooks: Hooks = Hooks()) -> dict[str, Any]:  # noqa: B008 - frozen
        """Train one epoch, or the rest of one. Returns its record, the same on every worker but for its times."""
        started, epoch, t = time.perf_counter(), self.progress.epoch, self.recipe.training
        sums, begun = Sums(self.recipe.attack.steps, self.device), self.progress.partial
        if begun is None:
            record: dict[str, Any] = {"epoch": epoch, "learning_rate": learning_rate(t, epoch)}
            record |= self._select(epoch)
        else:
            record, started = dict(begun.record), started - begun.seconds
            self._restore(begun, sums)

        order = draw_epoch(self.seed, epoch, len(self.images), self.progress.population)
        cuts = steps(len(order), self.recipe.inputs_per_step)
        positions = [share(cut, self.group.rank, self.group.world) for cut in cuts]
        first = begun.step if begun else 0
        plan = [(order[mine], view_seeds(self.seed, epoch, mine)) for mine in positions[first:]]
        attacks = self.recipe.attack.enabled and epoch >= t.e_t
        looks = worth_looking(self.progress.history[-1].get("attack_active", ())) if attacks and epoch else ()
        loader_workers, pinned = self.recipe.data.loader_workers, self.device != "cpu"
        loader = iter(batches(self.images, plan, loader_workers, pinned, self._decoder))
        self.module.train()
        self.worker_sync.begin(first)
        for number in range(first, len(cuts)):
            if self.worker_sync.due(number):
                self._ask(number, record, sums, started, hooks)
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = learning_rate(t, epoch, number, len(cuts))
            with self.timers("data"):
                x, y = next(loader)
            inputs = cuts[number].stop - cuts[number].start
            self.step(StepInput(x, y, positions[number], inputs, epoch, number, len(cuts), attacks, looks), sums)
            hooks.after_step(epoch, number)
        self.progress.partial = None
        return record | self._summary(epoch, sums, attacks, time.perf_counter() - started)

    def discard_counts(self) -> NDArray[np.int64]:
        """Label counts of every training sample, as discarding at the epoch that comes next needs them."""
        return self.selection.discard_counts(self.progress.epoch)

    def _select(self, epoch: int) -> dict[str, Any]:
        selected = self.selection.begin_epoch(epoch, self.progress.population)
        self.progress.population = selected.population
        self.progress.p_a |= selected.p_a
        return selected.record

    def _ask(self, number: int, record: dict, sums: Sums, started: float, hooks: Hooks) -> None:
        """Ask the other workers; stop where a loss has failed, and pass requests on."""
        self.timers.drain()
        requests, bad = self.worker_sync.ask(number, sums.failed)
        self._check(bad)
        if requests:
            if not self.finite():
                self._stop(f"a weight is not finite at epoch {self.progress.epoch}, step {number}")
            own = np.array([*sums.values(), *self.passes.seen()])
            # Every worker's own sums, so that they go on as they would have, to the last bit.
            every, seconds = self.group.gather(own).tolist(), time.perf_counter() - started
            self.progress.partial = Partial(number, record, every, sums.names, seconds)
            hooks.between_steps(requests)

    def _restore(self, begun: Partial, sums: Sums) -> None:
        every = np.array(begun.sums)
        if len(every) == self.group.world:
            own = every[self.group.rank]
        else:  # other workers than those that began the epoch: one of them takes all
            own = every.sum(0) if self.group.rank == 0 else np.zeros_like(every[0])
        sums.restore(own[:-2], begun.names)
        self.passes.set(int(own[-2]), int(own[-1]))

    def finite(self) -> bool:
        """Whether all weights and statistics are finite numbers."""
        return all(bool(torch.isfinite(value).all()) for value in self.module.state_dict().values())

    def _check(self, bad: int) -> None:
        if bad >= 0:
            self._stop(f"the loss is not finite at epoch {self.progress.epoch}, step {bad}")

    def _stop(self, problem: str) -> NoReturn:
        half = self.recipe.training.precision == "float16"
        advice = "training.precision=bfloat16" if half else "A smaller training.learning_rate or attack.epsilon"
        raise TrainingStopped(f"{problem}; the last checkpoint is from before it. {advice} may help")

    def _summary(self, epoch: int, sums: Sums, attacks: bool, seconds: float) -> dict[str, Any]:
        names, finite = sums.names, self.finite()
        own = np.array([*sums.values(), *self.passes.take()])
        self._check(self.worker_sync.ask(0, sums.failed)[1])
        every = [float(value) for value in self.group.sum(own if finite else own * math.nan)]
        inputs, copies = every[2], every[2] * self.recipe.training.m
        if not math.isfinite(every[0]):
            self._stop(f"a weight is not finite after epoch {epoch}")
        found: dict[str, Any] = {"loss": every[0] / inputs, "accuracy": every[1] / inputs, "inputs": int(inputs)}
        found |= {name: every[len(sums.totals) + i] / inputs for i, name in enumerate(names)}
        if attacks:
            found["attack_active"] = [round(a / copies, 6) for a in every[FIXED : len(sums.totals)]]
        population = self.progress.population
        found["remaining"] = len(self.images) if population is None else len(population.kept)
        found |= {"forward_passes": int(every[-2]), "backward_passes": int(every[-1])}
        return found | {"seconds": round(seconds, 4), "timing": self.timers.take(int(copies), seconds)}
