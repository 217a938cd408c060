"""The loop inside a Ray Train worker: the process group and restarts are Ray Train's, checkpoints our own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch

from acr_ray import __version__
from acr_ray.data import ImageSet, open_images
from acr_ray.models import ModelCard, check_readable, save_checkpoint
from acr_ray.models.state import read_tensors
from acr_ray.settings import Recipe, UserError
from acr_ray.smoothing.engine import BrokenModelError
from acr_ray.storage import Folder
from acr_ray.storage.node_checks import node_problem
from acr_ray.telemetry.logs import logger
from acr_ray.training.checkpoint import MODEL, DamagedCheckpoint
from acr_ray.training.checkpoint_store import CheckpointStore, Entry, EventLog
from acr_ray.training.group import Group, shared_text
from acr_ray.training.loop import Hooks, Trainer, TrainingStopped
from acr_ray.training.named_files import check_own_source
from acr_ray.training.p_a_file import write_p_a
from acr_ray.training.profiling import Profile
from acr_ray.training.requests import CONTROL, RUNNING, STOP, STOPPED, Requests, steer, steering
from acr_ray.training.worker_sync import END, LEAVE, WorkerSync

METRICS, PROBLEM, CHECKPOINT, BEST, STATE_FOLDER = "metrics.jsonl", "problem.json", "checkpoint", "best", "state"
NOTES, PROFILE = "notes.jsonl", "profile"
WRITE_FOR = 60.0  # seconds in which the trained model must find room


class Leaving(Exception):
    """This worker's place is going away and it has saved; Ray Train starts the workers again where there is room."""


class Ended(Exception):
    """The driver wants to stop, and everything is saved."""


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train until the last epoch is done; continues from the run's last intact checkpoint.

    Args:
        config: ``run`` (its name, for logs), ``recipe`` (nested values), ``seed``, ``out`` (URI), ``threads`` (of
            torch, a worker), ``checkpoint_every`` (epochs), ``checkpoint_minutes`` (or None), ``keep_checkpoints``,
            ``best_by``, ``profile`` (bool), ``fingerprint`` (of the data that the driver saw), ``contents`` (of what
            the recipe names, as the driver saw it).

    Returns:
        ``model_sha256`` on rank 0, ``problem`` where it could not be left as a file, else nothing.
    """
    out = Folder(config["out"])
    # Ray Train starts the workers again after any error. One that would come back is left in a file instead: the
    # new workers find it before they wait for each other, and the driver reports it.
    if out.is_file(PROBLEM) or steering(out) in (STOP, STOPPED):
        return {}
    try:
        return _train(config, out)
    except Ended:
        return {}
    except (UserError, TrainingStopped, BrokenModelError) as error:
        problem = {"kind": "user" if isinstance(error, UserError) else "stopped", "text": str(error)}
        try:
            out.write_json(PROBLEM, problem)
        except OSError:  # the disk is full: an error now would make Ray Train begin again, for nothing
            return {"problem": problem}
        raise


def _train(config: dict[str, Any], out: Folder) -> dict[str, Any]:
    torch.set_num_threads(config["threads"])
    recipe = Recipe.build(config["recipe"])
    device = str(ray.train.torch.get_device())
    group = Group(device)
    # Rank 0's answer is what reaches the driver, so all learn of the first one's problem; a file might reach nobody.
    if problem := shared_text(group, node_problem(out, CONTROL) or ""):
        return {"problem": {"kind": "user", "text": problem}}
    images = open_images(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map)
    if images.fingerprint() != config["fingerprint"]:
        raise UserError(f"data.root {recipe.data.root}: worker {group.rank} sees other data there than the driver")
    check_own_source(recipe, config["contents"])
    requests = Requests(out, group.rank, config["checkpoint_minutes"], _preempted)
    worker_sync = WorkerSync(group, requests)
    trainer = Trainer(recipe, images, config["seed"], group, device, config["contents"], worker_sync=worker_sync)
    log = logger(run=config["run"], rank=group.rank)
    notes = EventLog(out, NOTES) if group.rank == 0 else print
    states = CheckpointStore(out / STATE_FOLDER, config["keep_checkpoints"], config["best_by"], notes)
    _resume(trainer, states)
    log.info("at work on %s, %d workers, from epoch %d", device, group.world, trainer.progress.epoch)
    profile, unproven = _profile(trainer, out, config), [group.rank == 0]

    def after_step(epoch: int, number: int) -> None:
        if unproven[0]:
            unproven[0] = False
            _check_readable(trainer, _card(recipe, images, config))
        if profile:
            profile(epoch, number)

    def keep() -> None:
        if group.rank == 0:
            states.add(trainer.progress.epoch, trainer.progress.step, trainer.save)
            log.info("checkpoint at epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)
        requests.served()

    def between_steps(asked: int) -> None:
        keep()
        log.info("asked to stop, and saved" if asked & (END | LEAVE) else "asked to save, and did")
        if asked & END:
            if group.rank == 0:
                steer(out, STOPPED)
            raise Ended
        if asked & LEAVE:
            raise Leaving("a worker was told to end; the run goes on from the checkpoint it has just made")

    def after_epoch() -> None:
        progress, last = trainer.progress, trainer.progress.epoch == recipe.training.epochs
        if profile:
            profile.end_epoch(progress.epoch - 1)
        if group.rank == 0:
            _write_metrics(out, trainer, notes)
            _write_estimates(out, trainer, notes)
        if last or progress.epoch % config["checkpoint_every"] == 0:
            keep()

    if group.rank == 0:
        steer(out, RUNNING)
    trainer.run(Hooks(after_step, between_steps, after_epoch))
    if group.rank != 0:
        return {}
    return {"model_sha256": _finish(trainer, states, out, config, notes)}


def _resume(trainer: Trainer, states: CheckpointStore) -> None:
    """Go on from the newest checkpoint that verifies; all workers from the same."""
    group = trainer.group
    found = np.full(2, -1, dtype=np.int64)
    damaged = ""
    if group.rank == 0:
        try:
            entry = states.newest_intact()
            found[:] = (entry.epoch, entry.step) if entry else found
        except DamagedCheckpoint as error:
            damaged, found[0] = str(error), -2
    epoch, step = (int(value) for value in group.gather(found)[0])
    if epoch == -2:
        raise TrainingStopped(f"{damaged or 'no checkpoint of this run is intact'}; --overwrite starts the run anew")
    if epoch >= 0:
        entry = next(e for e in reversed(states.entries()) if (e.epoch, e.step) == (epoch, step))
        states.load(entry, trainer.load)
        return
    checkpoint = ray.train.get_checkpoint()  # of a run that an earlier version began
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.load(Path(folder))


def _profile(trainer: Trainer, out: Folder, config: dict[str, Any]) -> Profile | None:
    """Of the first epoch trained here and of epoch E_t, on one worker, where it is asked for."""
    if not config["profile"] or trainer.group.rank != 0:
        return None
    epochs = {trainer.progress.epoch} | ({trainer.recipe.training.e_t} if trainer.recipe.adapts else set())
    return Profile(out / PROFILE, trainer.group.rank, epochs)


def _check_readable(trainer: Trainer, card: ModelCard) -> None:
    """After one step: what is trained can be loaded once it is done. Raises TrainingStopped where it could not."""
    if not trainer.finite():
        return  # the loop says so itself, and where
    try:
        check_readable(trainer.module, card)
    except (ValueError, UserError) as error:
        raise TrainingStopped(f"the model could not be loaded once it is trained ({error})") from error


def _write_metrics(out: Folder, trainer: Trainer, notes: Any) -> None:
    try:
        out.write_text(METRICS, "".join(json.dumps(record) + "\n" for record in trainer.progress.history))
    except OSError as error:
        notes(f"{METRICS} could not be written after epoch {trainer.progress.epoch} ({error}); training goes on")


def _write_estimates(out: Folder, trainer: Trainer, notes: Any) -> None:
    progress = trainer.progress
    try:
        write_p_a(out, trainer.images, trainer.recipe, progress, progress.history[-1])
    except OSError as error:
        notes(f"p_A of epoch {progress.epoch - 1} could not be written ({error}); training goes on")


def _finish(trainer: Trainer, states: CheckpointStore, out: Folder, config: dict[str, Any], notes: Any) -> str:
    """Leave the trained model, and the best one where that is another. Returns the trained one's SHA-256."""
    best, card = states.best(), _card(trainer.recipe, trainer.images, config)
    until = time.monotonic() + WRITE_FOR
    while True:
        try:
            _write_metrics(out, trainer, notes)
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
            _keep_best(states, best, out, card)
        except (OSError, UserError) as error:
            notes(f"the best model, of {best.text}, could not be written ({error})")
    return sha


def _keep_best(states: CheckpointStore, best: Entry, out: Folder, card: ModelCard) -> None:
    def write(folder: Path) -> None:
        model = card.build()
        model.load_state_dict(read_tensors((folder / MODEL).read_bytes(), MODEL))
        save_checkpoint(out / BEST, model, card)

    states.load(best, write)


def _card(recipe: Recipe, images: ImageSet, config: dict[str, Any]) -> ModelCard:
    return ModelCard(
        architecture=recipe.model.architecture, num_classes=len(images.class_names), shape=images.shape,
        mean=images.mean, std=images.std, class_names=images.class_names, sigma=recipe.training.sigma,
        dataset=recipe.data.dataset, recipe=recipe.model_dump(mode="json"), data_fingerprint=config["fingerprint"],
        seed=config["seed"], code_version=__version__,
    )  # fmt: skip


def _preempted() -> bool:
    """Whether Ray has told this worker that a node of the run will be taken away.

    `ray.train.get_preemption_info` answers the same, but makes all workers wait for each other each time; the pulse
    already has them agree.
    """
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        return get_train_context().preemption_context.preemption_info is not None
    except (ImportError, AttributeError):  # another version of Ray
        return False
