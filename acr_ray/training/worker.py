"""The loop inside a Ray Train worker: process group, checkpoints and resume are Ray Train's."""

from __future__ import annotations

import json
import tempfile
import uuid
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from acr_ray import __version__
from acr_ray.data import open_images
from acr_ray.models import ModelCard, save_checkpoint
from acr_ray.settings import Recipe, UserError
from acr_ray.smoothing.engine import BrokenModelError
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer, TrainingStopped

METRICS, PROBLEM, CHECKPOINT = "metrics.jsonl", "problem.json", "checkpoint"


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train until the last epoch is done; continues from the run's last checkpoint.

    Args:
        config: ``recipe`` (nested values), ``seed``, ``out`` (URI), ``threads`` (of torch, a worker),
            ``checkpoint_every`` (epochs), ``fingerprint`` (of the data that the driver saw).

    Returns:
        ``model_sha256`` on rank 0, nothing on the others.
    """
    out = Folder(config["out"])
    # Ray Train starts the workers again after any error. One that would come back is left in a file instead: the
    # new workers find it before they wait for each other, and the driver reports it.
    if out.is_file(PROBLEM):
        return {}
    try:
        return _train(config, out)
    except (UserError, TrainingStopped, BrokenModelError) as error:
        out.write_json(PROBLEM, {"kind": "user" if isinstance(error, UserError) else "stopped", "text": str(error)})
        raise


def _train(config: dict[str, Any], out: Folder) -> dict[str, Any]:
    torch.set_num_threads(config["threads"])
    recipe = Recipe.build(config["recipe"])
    device = str(ray.train.torch.get_device())
    group = Group(device)
    images = open_images(recipe.data.dataset, recipe.data.root, "train")
    if images.fingerprint() != config["fingerprint"]:
        raise UserError(f"data.root {recipe.data.root}: worker {group.rank} sees other data there than the driver")
    trainer = Trainer(recipe, images, config["seed"], group, device)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.load(Path(folder))

    def after_epoch(trainer: Trainer) -> None:
        progress, last = trainer.progress, trainer.progress.epoch == recipe.training.epochs
        if group.rank == 0:
            out.write_text(METRICS, "".join(json.dumps(record) + "\n" for record in progress.history))
        if last or progress.epoch % config["checkpoint_every"] == 0:
            _report(trainer)

    trainer.run(after_epoch)
    if group.rank != 0:
        return {}
    out.write_text(METRICS, "".join(json.dumps(record) + "\n" for record in trainer.progress.history))
    card = ModelCard(
        architecture=recipe.model.architecture,
        num_classes=len(images.class_names),
        shape=images.shape,
        mean=images.mean,
        std=images.std,
        class_names=images.class_names,
        sigma=recipe.training.sigma,
        dataset=recipe.data.dataset,
        recipe=recipe.model_dump(mode="json"),
        data_fingerprint=config["fingerprint"],
        seed=config["seed"],
        code_version=__version__,
    )
    return {"model_sha256": save_checkpoint(out / CHECKPOINT, trainer.module, card).sha256}


def _report(trainer: Trainer) -> None:
    """Hand Ray Train a checkpoint of the epochs done. All workers call it; rank 0 brings the files."""
    metrics = {"epoch": trainer.progress.epoch}
    if trainer.group.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        trainer.save(Path(folder))
        # A worker that is killed between upload and registration leaves a folder behind; the next must not mix with it.
        name = f"epoch_{trainer.progress.epoch:05d}_{uuid.uuid4().hex[:8]}"
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder), checkpoint_dir_name=name)
