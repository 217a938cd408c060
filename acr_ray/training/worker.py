"""The loop inside a Ray Train worker: the process group and restarts are Ray Train's, checkpoints our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray.train
import ray.train.torch
import torch

from acr_ray.data import ImageSet, open_images
from acr_ray.formats.files import BEST_CHECKPOINT, CHECKPOINT, CONTROL, METRICS, PROFILE, STATE
from acr_ray.formats.states import ProblemKind, RunState
from acr_ray.models import ModelCard, check_readable, save_checkpoint
from acr_ray.models.state import read_tensors
from acr_ray.settings import UserError
from acr_ray.smoothing.engine import BrokenModelError
from acr_ray.storage import Folder
from acr_ray.storage.node_checks import node_problem
from acr_ray.telemetry.logs import logger
from acr_ray.training.checkpoint import MODEL, DamagedCheckpoint
from acr_ray.training.checkpoint_store import CheckpointStore, Entry
from acr_ray.training.control.channel import ControlChannel, EventLog
from acr_ray.training.control.messages import Problem, Request, WorkerConfig, WorkerResult
from acr_ray.training.control.requests import TERMINATION, Requests
from acr_ray.training.control.worker_sync import WorkerSync
from acr_ray.training.group import Group, shared_text
from acr_ray.training.loop import Hooks, Trainer, TrainingStopped
from acr_ray.training.named_files import check_own_source
from acr_ray.training.networks import model_card
from acr_ray.training.p_a_file import write_p_a
from acr_ray.training.profiling import Profile

WRITE_FOR = 60.0  # seconds in which the trained model must find room

Log = Callable[[str], None]  # gets a line for the user


class Leaving(Exception):
    """This worker's place is going away and it has saved; Ray Train starts the workers again when there is room."""


class Ended(Exception):
    """The driver wants to stop, and everything is saved."""


def train_worker(given: dict[str, WorkerConfig]) -> WorkerResult:
    """Train until the last epoch is done; resume from the run's last intact checkpoint.

    Args:
        given: ``{"config": …}``: Ray Train takes only dictionaries.
    """
    config = given["config"]
    channel = ControlChannel(Folder(config.out))
    # Ray Train starts the workers again after any error. One that would come back is left in a file instead: the
    # new workers find it before they wait for each other, and the driver reports it.
    if channel.has_problem() or channel.state() in (RunState.STOP, RunState.STOPPED):
        return WorkerResult()
    try:
        return _train(config, channel)
    except Ended:
        return WorkerResult()
    except (UserError, TrainingStopped, BrokenModelError) as error:
        problem = Problem.of(error)
        try:
            channel.report_problem(problem)
        except OSError:  # the disk is full: an error now would make Ray Train begin again, for nothing
            return WorkerResult(problem=problem)
        raise


def _train(config: WorkerConfig, channel: ControlChannel) -> WorkerResult:
    torch.set_num_threads(config.threads)
    recipe = config.recipe
    device = str(ray.train.torch.get_device())
    group = Group(device)
    # Rank 0's answer is what reaches the driver, so all learn of the first one's problem; a file might reach nobody.
    if text := shared_text(group, node_problem(channel.out, CONTROL) or ""):
        return WorkerResult(problem=Problem(kind=ProblemKind.USER, text=text))
    images = open_images(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map, recipe.data.options)
    if images.fingerprint() != config.fingerprint:
        raise UserError(f"data.root {recipe.data.root}: worker {group.rank} sees other data there than the driver")
    check_own_source(recipe, config.contents)
    return WorkerRun(config, channel, group, images, device).run()


class WorkerRun:
    """A run as one of its workers trains it: the trainer, and what happens between its steps and epochs.

    Args:
        config: of the run.
        channel: to the driver.
        group: the workers.
        images: the training split.
        device: ``"cpu"`` or a CUDA device.

    Raises:
        TrainingStopped: the run has checkpoints, and none of them is intact.
    """

    def __init__(
        self, config: WorkerConfig, channel: ControlChannel, group: Group, images: ImageSet, device: str
    ) -> None:
        recipe, out = config.recipe, channel.out
        self.config, self.channel, self.first = config, channel, group.rank == 0
        self.requests = Requests(channel, group.rank, config.checkpoint_minutes, TERMINATION, _preempted)
        worker_sync = WorkerSync(group, self.requests)
        self.trainer = Trainer(recipe, images, config.seed, group, device, config.contents, worker_sync=worker_sync)
        self.log = logger(run=config.run, rank=group.rank)
        self.events: Log = EventLog(out) if self.first else print
        self.checkpoints = CheckpointStore(out / STATE, config.keep_checkpoints, config.best_by, self.events)
        _resume(self.trainer, self.checkpoints)
        self.log.info("training on %s, %d workers, from epoch %d", device, group.world, self.trainer.progress.epoch)
        self.profile = _profile(self.trainer, out, config)
        self._to_check = self.first  # whether what is trained must still be shown to be readable

    def run(self) -> WorkerResult:
        """Train the epochs that are left. Returns the trained model's SHA-256 on the first worker, which writes it."""
        if self.first:
            self.channel.set_state(RunState.RUNNING)
        self.trainer.run(Hooks(self.after_step, self.between_steps, self.after_epoch))
        if not self.first:
            return WorkerResult()
        sha = _finish(self.trainer, self.checkpoints, self.channel, self.config, self.events)
        return WorkerResult(model_sha256=sha)

    def after_step(self, epoch: int, number: int) -> None:
        """Check after the first step trained here that the model can be read again; hand each step to the profiler."""
        if self._to_check:
            self._to_check = False
            _check_readable(
                self.trainer,
                model_card(self.trainer.recipe, self.trainer.images, self.config.seed, self.config.fingerprint),
            )
        if self.profile:
            self.profile(epoch, number)

    def between_steps(self, asked: Request) -> None:
        """Save, as any request asks for. Raises Ended or Leaving if the run is to stop or this place to be left."""
        self.save()
        leaves = asked & (Request.END | Request.LEAVE)
        self.log.info("asked to stop, and saved" if leaves else "asked to save, and did")
        if asked & Request.END:
            if self.first:
                self.channel.set_state(RunState.STOPPED)
            raise Ended
        if asked & Request.LEAVE:
            raise Leaving("a worker was told to end; the run resumes from the checkpoint it has just made")

    def after_epoch(self) -> None:
        """Write the epoch's metrics and p_A estimates, and save if a checkpoint is due."""
        progress = self.trainer.progress
        if self.profile:
            self.profile.end_epoch(progress.epoch - 1)
        if self.first:
            _write_metrics(self.channel, self.trainer, self.events)
            _write_estimates(self.channel.out, self.trainer, self.events)
        last = progress.epoch == self.config.recipe.training.epochs
        if last or progress.epoch % self.config.checkpoint_every == 0:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, on the first worker; on every worker its requests are served by that."""
        if self.first:
            progress = self.trainer.progress
            self.checkpoints.add(progress.epoch, progress.step, self.trainer.save)
            self.log.info("checkpoint at epoch %d, step %d", progress.epoch, progress.step)
        self.requests.served()


def _resume(trainer: Trainer, checkpoints: CheckpointStore) -> None:
    """Load the newest checkpoint that verifies, if there is one; all workers the same."""
    group = trainer.group
    place = np.full(2, -1, dtype=np.int64)  # epoch and step; an epoch of -1: none, -2: all are damaged
    damaged = ""
    if group.rank == 0:
        try:
            entry = checkpoints.newest_intact()
            place[:] = (entry.epoch, entry.step) if entry else place
        except DamagedCheckpoint as error:
            damaged, place[0] = str(error), -2
    epoch, step = (int(value) for value in group.gather(place)[0])
    if epoch == -2:
        raise TrainingStopped(f"{damaged or 'no checkpoint of this run is intact'}; --overwrite starts the run anew")
    if epoch >= 0:
        entry = next(e for e in reversed(checkpoints.entries()) if (e.epoch, e.step) == (epoch, step))
        checkpoints.load(entry, trainer.load)


def _profile(trainer: Trainer, out: Folder, config: WorkerConfig) -> Profile | None:
    """Trace the first epoch trained here and epoch E_t, on one worker, if that is asked for."""
    if not config.profile or trainer.group.rank != 0:
        return None
    epochs = {trainer.progress.epoch} | ({trainer.recipe.training.e_t} if trainer.recipe.changes_at_e_t else set())
    return Profile(out / PROFILE, trainer.group.rank, epochs)


def _check_readable(trainer: Trainer, card: ModelCard) -> None:
    """Check after one step that what is trained can be loaded once it is done. Raises TrainingStopped if not."""
    if not trainer.finite():
        return  # the loop says so itself, and where
    try:
        check_readable(trainer.module, card)
    except (ValueError, UserError) as error:
        raise TrainingStopped(f"the model could not be loaded once it is trained ({error})") from error


def _write_metrics(channel: ControlChannel, trainer: Trainer, events: Log) -> None:
    try:
        channel.write_records(trainer.progress.history)
    except OSError as error:
        events(f"{METRICS} could not be written after epoch {trainer.progress.epoch} ({error}); training continues")


def _write_estimates(out: Folder, trainer: Trainer, events: Log) -> None:
    progress = trainer.progress
    try:
        write_p_a(out, trainer.images, trainer.recipe, progress, progress.history[-1])
    except OSError as error:
        events(f"p_A of epoch {progress.epoch - 1} could not be written ({error}); training continues")


def _finish(
    trainer: Trainer, checkpoints: CheckpointStore, channel: ControlChannel, config: WorkerConfig, events: Log
) -> str:
    """Write the trained model, and the best one if that is another. Returns the trained one's SHA-256."""
    out, best, card = (
        channel.out,
        checkpoints.best(),
        model_card(trainer.recipe, trainer.images, config.seed, config.fingerprint),
    )
    until = time.monotonic() + WRITE_FOR
    while True:
        try:
            _write_metrics(channel, trainer, events)
            sha = save_checkpoint(out / CHECKPOINT, trainer.module, card).sha256
            break
        except (OSError, UserError) as error:
            if time.monotonic() > until:
                raise TrainingStopped(
                    f"the trained model could not be written ({error}); make room, then the same command writes it"
                ) from error
            time.sleep(2)
    if best is not None and best.epoch != trainer.progress.epoch:
        try:
            _keep_best(checkpoints, best, out, card)
        except (OSError, UserError) as error:
            events(f"the best model, of {best.text}, could not be written ({error})")
    return sha


def _keep_best(checkpoints: CheckpointStore, best: Entry, out: Folder, card: ModelCard) -> None:
    def write(folder: Path) -> None:
        model = card.build()
        model.load_state_dict(read_tensors((folder / MODEL).read_bytes(), MODEL))
        save_checkpoint(out / BEST_CHECKPOINT, model, card)

    checkpoints.load(best, write)


def _preempted() -> bool:
    """Return whether Ray has told this worker that a node of the run will be taken away.

    `ray.train.get_preemption_info` answers the same, but makes all workers wait for each other each time; `WorkerSync`
    already has them agree.
    """
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        return get_train_context().preemption_context.preemption_info is not None
    except (ImportError, AttributeError):  # another version of Ray
        return False
