"""One trial of a search: a training run that begins at its fork and is measured on held-out images. No Ray."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from acr_ray.data import ImageSet, open_images
from acr_ray.formats.files import CHECKPOINT, TRIAL_PROGRESS, TRIALS
from acr_ray.formats.states import TrialStatus
from acr_ray.models import save_checkpoint
from acr_ray.settings import Recipe, UserError, digest
from acr_ray.smoothing.engine import BrokenModelError
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer, TrainingStopped
from acr_ray.training.named_files import Contents
from acr_ray.training.networks import model_card
from acr_ray.training.workers import Workers
from acr_ray.tuning.kept_files import read_report
from acr_ray.tuning.leases import Claims
from acr_ray.tuning.objectives import Objective, ValidationCounts, failed, measure
from acr_ray.tuning.space import Point
from acr_ray.tuning.trunks import Trunks, passes_of
from acr_ray.tuning.validation import ValidationSettings, held_out, validate, write_images

STOPS = (TrainingStopped, BrokenModelError, UserError)  # would happen again if the trial were tried again
SINCE_FORKS = "epochs_since_forks"  # epochs after the last E_t of the space: the time that schedulers go by


@dataclass(frozen=True)
class SearchContext:
    """What all trials of a search share.

    Attributes:
        recipe: the trials' recipe but for the fields of the space.
        seed: of training, validation images and validation noise.
        out: URI of the search's folder.
        validation: how trials are measured.
        objectives: the numbers that every trial reports, those asked for first.
        count: how many of them were asked for.
        workers: hardware of a trial.
        trunks: whether trials fork from trunks; else each is trained from the beginning.
        forks: E_t values known beforehand.
        rungs: epochs after which unfinished trials are measured, for a scheduler to compare.
        checkpoint_every: epochs between a trial's checkpoints.
        fingerprint: of the training images, as the driver sees them.
        contents: of what recipes name by path or module, see `check_named`.
    """

    recipe: Recipe
    seed: int
    out: str
    validation: ValidationSettings
    objectives: tuple[Objective, ...]
    count: int
    workers: Workers
    trunks: bool
    forks: tuple[int, ...]
    rungs: tuple[int, ...]
    checkpoint_every: int
    fingerprint: str
    contents: Contents = field(default_factory=dict)

    @property
    def baseline(self) -> Point | None:
        """The changes that make plain Gaussian training of the recipe; None if it is that already.

        At the last E_t that trials fork at, so that their trunk is most of it.
        """
        if self.recipe.method.name == "gaussian" and not self.recipe.changes_at_e_t:
            return None
        point: Point = {f"{part}.enabled": False for part in ("discard", "reweigh", "attack")}
        point |= {"training.replacement": False} if self.recipe.training.replacement else {}
        if self.recipe.method.name != "gaussian":
            return point | {"method.name": "gaussian"}
        return point | ({"training.e_t": max(self.forks)} if self.forks else {})

    @property
    def asked(self) -> tuple[Objective, ...]:
        """The objectives of the search."""
        return self.objectives[: self.count]

    @property
    def run_context(self) -> dict[str, Any]:
        """What decides a trial's weights beside its recipe."""
        images = {"share": self.validation.share, "most": self.validation.most, "images": self.fingerprint}
        hardware = {"workers": self.workers.count, "cpus": self.workers.cpus, "gpu": bool(self.workers.gpus)}
        return {"seed": self.seed, **images, **hardware}

    @property
    def device(self) -> str:
        return "cuda" if self.workers.gpus else "cpu"

    def trial_id(self, point: Point) -> str:
        """Return a trial's name: what decides its weights and how it is measured, so equal trials have the same."""
        recipe = self.recipe.change(point, self.recipe.name)
        return digest(recipe.identity(self.contents) | self.run_context | self.validation.flat())[:12]

    def trunks_for(self, claims: Claims) -> Trunks:
        return Trunks(Folder(self.out), self.forks, claims, self.run_context, self.checkpoint_every, self.contents)

    def images(self) -> tuple[ImageSet, ImageSet]:
        """(trained on, validated on). Raises UserError if other images lie here than the driver saw."""
        images = open_images(
            self.recipe.data.dataset,
            self.recipe.data.root,
            "train",
            self.recipe.data.class_map,
            self.recipe.data.options,
        )
        if images.fingerprint() != self.fingerprint:
            raise UserError(f"data.root {self.recipe.data.root}: a trial sees other data there than the driver")
        return held_out(images, self.validation, self.seed)


@dataclass
class TrialState:
    """What goes with a trial's checkpoint.

    Attributes:
        trunk: name of the trunk that it forked from; empty: none.
        seconds: spent on the trial.
        validation_passes: noise draws of all its validations.
        metrics: as last measured.
    """

    trunk: str = ""
    seconds: float = 0.0
    validation_passes: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


class TrialRun:
    """A trial at work on one worker: `begin` or `load`, then `advance` while a report's status is running.

    Args:
        context: what it shares with the others.
        point: its own values.
        images: ``context.images()``.
        group, device: as for `Trainer`.
    """

    def __init__(
        self, context: SearchContext, point: Point, images: tuple[ImageSet, ImageSet], group: Group, device: str = "cpu"
    ) -> None:
        self.context, self.point, self.group = context, point, group
        self.trial_id = context.trial_id(point)
        self.training, self.validation = images
        recipe = context.recipe.change(point, context.recipe.name)
        self.trainer = Trainer(recipe, self.training, context.seed, group, device, context.contents)
        self.state = TrialState()
        self._reason = ""
        self._counts: ValidationCounts | None = None

    @property
    def forked(self) -> bool:
        """Whether the trial starts from a trunk. If nothing acts from E_t on there is nothing to share, but for the
        baseline, which starts at the end of the others' trunk."""
        shares = self.trainer.recipe.changes_at_e_t or (
            self.point == self.context.baseline and "training.e_t" in self.point
        )
        return self.context.trunks and shares

    def begin(self, claims: Claims) -> None:
        """Start a trial that has no checkpoint of its own."""
        try:
            if self.forked:
                self.state.trunk = self.context.trunks_for(claims).fork(self.trainer)
        except STOPS as error:
            self._reason = str(error)

    def save(self, folder: Path) -> None:
        self.trainer.save(folder)
        (folder / TRIAL_PROGRESS).write_text(json.dumps(asdict(self.state)))

    def load(self, folder: Path) -> None:
        self.trainer.load(folder)
        self.state = TrialState(**json.loads((folder / TRIAL_PROGRESS).read_text()))

    def finished(self) -> dict[str, Any] | None:
        """Return the report of this trial if it, or an equal one, has been finished before."""
        folder, name = Folder(self.context.out) / TRIALS, f"{self.trial_id}.json"
        return read_report(folder, name) if folder.is_file(name) else None

    def advance(self) -> dict[str, Any]:
        """Train to the next checkpoint, rung or the end, and report. All workers call it and get the same report.

        A trial that cannot be trained (it diverges, or discards everything) reports the worst values and ends.
        """
        started, epochs = time.monotonic(), self.trainer.recipe.training.epochs
        stop, measured = self._next_stop(), False
        try:
            if not self._reason:
                self.trainer.run(until=stop)
            if not self._reason and (stop in self.context.rungs or stop == epochs):
                self._measure()
                measured = True
        except STOPS as error:
            self._reason = str(error)
        if self._reason:
            self.state.metrics = failed(self.context.objectives)
        self.state.seconds += time.monotonic() - started
        report = self._report(stop, self._reason, measured)
        if report["status"] != TrialStatus.RUNNING and self.group.rank == 0:
            self._keep(report)
        return report

    def _next_stop(self) -> int:
        at, epochs = self.trainer.progress.epoch, self.trainer.recipe.training.epochs
        every = self.context.checkpoint_every
        return min([epochs, (at // every + 1) * every, *(rung for rung in self.context.rungs if rung > at)])

    def _measure(self) -> None:
        counts = validate(self.trainer.engine, self.validation, self.context.validation, self.context.seed, self.group)
        self.trainer.passes.take()  # draws of a validation are no cost of the next epoch
        self.state.validation_passes += counts.noise_draws
        self.state.metrics = measure(counts, self.context.objectives)
        self._counts = counts

    def _report(self, stop: int, reason: str, measured: bool) -> dict[str, Any]:
        progress, recipe = self.trainer.progress, self.trainer.recipe
        fork = recipe.training.e_t if self.forked else 0
        own, over = passes_of(progress.history[fork:]), progress.epoch == recipe.training.epochs
        # A scheduler compares what carries this key: measurements, at their own epochs.
        rung = {SINCE_FORKS: stop - max(self.context.forks, default=0)} if measured or reason else {}
        unknown = {objective.name: float("nan") for objective in self.context.objectives}
        return (
            unknown
            | self.state.metrics
            | rung
            | {
                "trial": self.trial_id,
                "epoch": progress.epoch,
                "status": TrialStatus.FAILED if reason else TrialStatus.FINISHED if over else TrialStatus.RUNNING,
                "reason": reason,
                "trunk": self.state.trunk,
                "forward_passes": own.forward,
                "backward_passes": own.backward,
                "validation_passes": self.state.validation_passes,
                "remaining": [r["remaining"] for r in progress.history[fork:]],
                "attack_active": [r.get("attack_active", []) for r in progress.history[fork:]],
                "seconds": round(self.state.seconds, 3),
            }
        )

    def _keep(self, report: dict[str, Any]) -> None:
        """Leave the trial's report and, if it was trained to its end, its model."""
        folder, recipe = Folder(self.context.out) / TRIALS, self.trainer.recipe
        if report["status"] == TrialStatus.FINISHED:
            images = self.training
            card = model_card(recipe, images, self.context.seed, images.fingerprint())
            report["model_sha256"] = save_checkpoint(
                folder / self.trial_id / CHECKPOINT, self.trainer.module, card
            ).sha256
            if self._counts is not None:
                write_images(folder / self.trial_id, self._counts)
        folder.write_json(f"{self.trial_id}.json", report)
