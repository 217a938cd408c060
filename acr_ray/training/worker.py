"""The loop inside a Ray Train worker: the process group and restarts are Ray Train's, checkpoints our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray.train
import ray.train.torch
import torch

from acr_ray import __version__
from acr_ray.data import ImageSet, open_images
from acr_ray.formats.files import BEST_CHECKPOINT, CHECKPOINT, CONTROL, METRICS, PROFILE, STATE
from acr_ray.formats.states import ProblemKind, RunState
from acr_ray.models import ModelCard, check_readable, save_checkpoint
from acr_ray.models.state import read_tensors
from acr_ray.settings import Recipe, UserError
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
    recipe, out = config.recipe, channel.out
    device = str(ray.train.torch.get_device())
    group = Group(device)
    # Rank 0's answer is what reaches the driver, so all learn of the first one's problem; a file might reach nobody.
    if text := shared_text(group, node_problem(out, CONTROL) or ""):
        return WorkerResult(problem=Problem(kind=ProblemKind.USER, text=text))
    images = open_images(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map)
    if images.fingerprint() != config.fingerprint:
        raise UserError(f"data.root {recipe.data.root}: worker {group.rank} sees other data there than the driver")
    check_own_source(recipe, config.contents)
    requests = Requests(channel, group.rank, config.checkpoint_minutes, TERMINATION, _preempted)
    worker_sync = WorkerSync(group, requests)
    trainer = Trainer(recipe, images, config.seed, group, device, config.contents, worker_sync=worker_sync)
    log = logger(run=config.run, rank=group.rank)
    events: Log = EventLog(out) if group.rank == 0 else print
    checkpoints = CheckpointStore(out / STATE, config.keep_checkpoints, config.best_by, events)
    _resume(trainer, checkpoints)
    log.info("training on %s, %d workers, from epoch %d", device, group.world, trainer.progress.epoch)
    profile, unproven = _profile(trainer, out, config), [group.rank == 0]

    def after_step(epoch: int, number: int) -> None:
        if unproven[0]:
            unproven[0] = False
            _check_readable(trainer, _card(recipe, images, config))
        if profile:
            profile(epoch, number)

    def save() -> None:
        if group.rank == 0:
            checkpoints.add(trainer.progress.epoch, trainer.progress.step, trainer.save)
            log.info("checkpoint at epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)
        requests.served()

    def between_steps(asked: Request) -> None:
        save()
        log.info("asked to stop, and saved" if asked & (Request.END | Request.LEAVE) else "asked to save, and did")
        if asked & Request.END:
            if group.rank == 0:
                channel.set_state(RunState.STOPPED)
            raise Ended
        if asked & Request.LEAVE:
            raise Leaving("a worker was told to end; the run resumes from the checkpoint it has just made")

    def after_epoch() -> None:
        progress, last = trainer.progress, trainer.progress.epoch == recipe.training.epochs
        if profile:
            profile.end_epoch(progress.epoch - 1)
        if group.rank == 0:
            _write_metrics(channel, trainer, events)
            _write_estimates(out, trainer, events)
        if last or progress.epoch % config.checkpoint_every == 0:
            save()

    if group.rank == 0:
        channel.set_state(RunState.RUNNING)
    trainer.run(Hooks(after_step, between_steps, after_epoch))
    if group.rank != 0:
        return WorkerResult()
    return WorkerResult(model_sha256=_finish(trainer, checkpoints, channel, config, events))


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
    out, best, card = channel.out, checkpoints.best(), _card(trainer.recipe, trainer.images, config)
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


def _card(recipe: Recipe, images: ImageSet, config: WorkerConfig) -> ModelCard:
    return ModelCard(
        architecture=recipe.model.architecture,
        num_classes=len(images.class_names),
        shape=images.shape,
        mean=images.mean,
        std=images.std,
        class_names=images.class_names,
        sigma=recipe.training.sigma,
        dataset=recipe.data.dataset,
        recipe=recipe.model_dump(mode="json"),
        data_fingerprint=config.fingerprint,
        seed=config.seed,
        code_version=__version__,
    )


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
