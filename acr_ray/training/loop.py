"""The one training loop, for every method. Plain PyTorch: no Ray, no MLflow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from acr_ray.data import ImageSet, batches
from acr_ray.data.sampling import Population, draw_epoch, share, steps, view_seeds
from acr_ray.models import build_model, load_checkpoint
from acr_ray.settings import Recipe, UserError, derive_seed
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.training.attack import attack_noise
from acr_ray.training.estimate import label_counts
from acr_ray.training.group import Group
from acr_ray.training.methods import Batch, build_method
from acr_ray.training.noise import training_noise
from acr_ray.training.passes import PassCounter
from acr_ray.training.population import kept_by_p_a, radius_weights
from acr_ray.training.state import Progress, load_state, save_state


class TrainingStopped(RuntimeError):
    """Training cannot go on, and would not if it were tried again; the text says why and what to do."""


class Trainer:
    """A recipe at work on one worker.

    Args:
        recipe: what to train.
        images: the training split.
        seed: of initial weights, order of samples, views and noise.
        group: the workers; all must be given the same recipe, images and seed.
        device: ``"cpu"`` or a CUDA device.

    The sequence of global batches, views and noise does not depend on the number of workers.
    """

    def __init__(self, recipe: Recipe, images: ImageSet, seed: int, group: Group, device: str = "cpu") -> None:
        self.recipe, self.images, self.seed, self.group, self.device = recipe, images, seed, group, device
        t = recipe.training
        module = build_model(
            recipe.model.architecture, len(images.class_names), images.shape, images.mean, images.std,
            derive_seed(seed, "init"),
        )  # fmt: skip
        self.memory_format = torch.channels_last if t.channels_last else torch.contiguous_format
        self.module = module.to(device=device, memory_format=self.memory_format)
        self.passes = PassCounter(self.module)
        self.model = group.wrap(self.module)
        self.optimizer = torch.optim.SGD(
            self.module.parameters(), lr=t.learning_rate, momentum=t.momentum, weight_decay=t.weight_decay
        )
        self.method = build_method(recipe)
        self.identity = recipe.sha256  # of the checkpoints that this run writes, and reads unless told otherwise
        self.engine = SamplingEngine(self.module, len(images.class_names), t.sigma, device)
        self.progress = Progress()
        smallest = min(s.stop - s.start for s in steps(len(images), recipe.inputs_per_step))
        if smallest < group.world:
            raise UserError(
                f"--workers {group.world}: a step has only {smallest} inputs to share (batch_size/m); "
                f"allowed: 1 to {smallest}, or a larger training.batch_size"
            )

    def save(self, folder: Path) -> None:
        save_state(folder, self.module, self.optimizer, self.progress, self.identity)

    def load(self, folder: Path, identity: str | None = None) -> None:
        """Go on from a checkpoint of this run, or, to fork, of the run whose ``identity`` is given."""
        self.progress = load_state(folder, self.module, self.optimizer, identity or self.identity)

    def run(self, after_epoch: Callable[[Trainer], None] = lambda trainer: None, until: int | None = None) -> None:
        """Train the epochs that are left, up to ``until`` where given; ``after_epoch`` is called on every worker."""
        last = self.recipe.training.epochs if until is None else min(until, self.recipe.training.epochs)
        while self.progress.epoch < last:
            record = self.epoch()
            self.progress.history.append(record)
            self.progress.epoch += 1
            after_epoch(self)

    def epoch(self) -> dict[str, Any]:
        """Train one epoch. Returns its record, the same on every worker but for its seconds."""
        started, epoch, t = time.perf_counter(), self.progress.epoch, self.recipe.training
        record: dict[str, Any] = {"epoch": epoch, "learning_rate": _learning_rate(t, epoch)}
        if self.recipe.adapts and epoch >= t.e_t:
            record |= self._adapt(epoch)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = record["learning_rate"]

        order = draw_epoch(self.seed, epoch, len(self.images), self.progress.population)
        cuts = steps(len(order), self.recipe.inputs_per_step)
        positions = [share(cut, self.group.rank, self.group.world) for cut in cuts]
        plan = [(order[mine], view_seeds(self.seed, epoch, mine)) for mine in positions]
        attacks = self.recipe.attack.enabled and epoch >= t.e_t
        totals = torch.zeros(3 + self.recipe.attack.steps, dtype=torch.float64, device=self.device)
        logs: dict[str, torch.Tensor] = {}
        loader = batches(self.images, plan, self.recipe.data.loader_workers, pin_memory=self.device != "cpu")
        self.module.train()
        for number, (cut, mine, (x, y)) in enumerate(zip(cuts, positions, loader, strict=True)):
            noise = training_noise(self.seed, epoch, mine, t.m, self.images.shape, self.device).mul_(t.sigma)
            x = x.to(self.device, non_blocking=True, memory_format=self.memory_format)
            y = torch.as_tensor(y).to(self.device, non_blocking=True)
            batch = Batch(
                x, y, noise, t.m, t.sigma, epoch + number / len(cuts), self.module,
                view_seeds(self.seed, epoch, mine, "method"), len(self.images.class_names),
            )  # fmt: skip
            if attacks:
                attacked = attack_noise(
                    self.module, batch.repeated(x), batch.repeated(y), noise, self.recipe.attack
                )  # fmt: skip
                batch = replace(batch, noise=attacked.noise)
                totals[3:] += attacked.active
            found = self.method.loss(self.model, batch)
            # DDP averages workers alike; a worker's share of the step's inputs makes that the mean over inputs.
            part = len(mine) / (cut.stop - cut.start)
            self.optimizer.zero_grad(set_to_none=True)
            (found.loss * (part * self.group.world)).backward()
            self.optimizer.step()
            self.group.average_buffers(self.module)
            with torch.no_grad():
                totals[0] += found.loss * len(mine)
                totals[1] += (found.logits.argmax(1) == batch.repeated(y)).sum() / t.m
                totals[2] += len(mine)
                for name, value in found.logs.items():
                    logs[name] = logs.get(name, 0) + value.detach().double() * len(mine)
        return record | self._summary(epoch, totals, logs, attacks, time.perf_counter() - started)

    def _summary(self, epoch: int, totals: torch.Tensor, logs: dict, attacks: bool, seconds: float) -> dict[str, Any]:
        names = sorted(logs)
        finite = all(bool(torch.isfinite(value).all()) for value in self.module.state_dict().values())
        own = np.array([*totals.tolist(), *(float(logs[n]) for n in names), *self.passes.take()])
        every = [float(value) for value in self.group.sum(own if finite else own * math.nan)]
        inputs, copies = every[2], every[2] * self.recipe.training.m
        if not math.isfinite(every[0]):
            raise TrainingStopped(
                f"the loss or a weight is not finite after epoch {epoch}; the last checkpoint is from before it. "
                "A smaller training.learning_rate or attack.epsilon may help"
            )
        found = {"loss": every[0] / inputs, "accuracy": every[1] / inputs, "inputs": int(inputs)}
        found |= {name: every[len(totals) + i] / inputs for i, name in enumerate(names)}
        if attacks:
            found["attack_active"] = [round(a / copies, 6) for a in every[3 : len(totals)]]
        population = self.progress.population
        found["remaining"] = len(self.images) if population is None else len(population.kept)
        found |= {"forward_passes": int(every[-2]), "backward_passes": int(every[-1])}
        return found | {"seconds": round(seconds, 4)}

    def _adapt(self, epoch: int) -> dict[str, Any]:
        """Discard and reweigh where this epoch asks for it."""
        t, discard, reweigh = self.recipe.training, self.recipe.discard, self.recipe.reweigh
        record: dict[str, Any] = {}
        everything = np.arange(len(self.images), dtype=np.int64)
        if epoch == t.e_t:
            self.progress.population = Population(everything, None) if reweigh.enabled else None
        if discard.enabled and epoch == t.e_t:
            counts = self.progress.p_a.get("discard")  # a fork brings what another of its trunk has estimated
            counts = self.discard_counts() if counts is None else counts
            kept = everything[kept_by_p_a(counts, discard.draws, discard.p_t)]
            if len(kept) == 0:
                raise TrainingStopped(
                    f"discard: no training sample has p_A >= {discard.p_t} at epoch {epoch}; "
                    "lower discard.p_t or raise training.e_t"
                )
            self.progress.population = Population(kept, None)
            self.progress.p_a["discard"] = counts
            record |= _describe("discard", counts, discard.draws)
        if reweigh.enabled and (epoch - t.e_t) % reweigh.every == 0:
            kept = self.progress.population.kept
            counts = self._counts(kept, reweigh.draws, f"reweigh/{epoch}", reweigh.view, None)
            weights = radius_weights(counts[kept], reweigh.draws, reweigh.p_min, reweigh.alpha)
            if not weights.any():
                raise TrainingStopped(
                    f"reweigh: every sample's weight is 0 at epoch {epoch}; raise reweigh.p_min or reweigh.draws"
                )
            self.progress.population = Population(kept, weights)
            self.progress.p_a["reweigh"] = counts
            effective = float(weights.sum() ** 2 / (weights**2).sum() / len(weights))
            record |= _describe("reweigh", counts[kept], reweigh.draws)
            record |= {"reweigh_effective_share": effective}
        return record

    def discard_counts(self) -> NDArray[np.int64]:
        """Label counts of every training sample, as discarding at the epoch that comes next needs them."""
        everything, discard = np.arange(len(self.images), dtype=np.int64), self.recipe.discard
        purpose = f"discard/{self.progress.epoch}"
        return self._counts(everything, discard.draws, purpose, discard.view, discard.checkpoint)

    def _counts(
        self, items: NDArray[np.int64], draws: int, purpose: str, view: str, checkpoint: str | None
    ) -> NDArray[np.int64]:
        engine = self.engine
        if checkpoint is not None:
            model, card = load_checkpoint(checkpoint)
            if card.num_classes != len(self.images.class_names):
                raise UserError(
                    f"discard.checkpoint {checkpoint}: has {card.num_classes} classes, "
                    f"the data {len(self.images.class_names)}"
                )
            model = model.to(device=self.device, memory_format=self.memory_format)
            engine = SamplingEngine(model, card.num_classes, self.recipe.training.sigma, self.device)
        return label_counts(
            engine, self.images, items, draws, purpose=purpose, seed=self.seed, augmented=view == "training",
            group=self.group, loader_workers=self.recipe.data.loader_workers,
        )  # fmt: skip


def _learning_rate(training: Any, epoch: int) -> float:
    return training.learning_rate * training.lr_decay ** sum(epoch >= milestone for milestone in training.milestones)


def _describe(name: str, counts: NDArray[np.int64], draws: int) -> dict[str, Any]:
    p_a = counts / draws
    return {
        f"{name}_p_a_mean": float(p_a.mean()),
        f"{name}_hard_share": float((p_a < 0.5).mean()),
        f"{name}_p_a_histogram": np.histogram(p_a, bins=10, range=(0, 1))[0].tolist(),
    }
