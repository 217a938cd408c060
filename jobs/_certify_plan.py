"""The settings that a checkpoint and the options of jobs.certify make, and the plan of the run."""

from __future__ import annotations

import argparse
import copy

from torch import nn

from acr_ray.certification.run_plan import RunPlan
from acr_ray.data import ImageSet, select
from acr_ray.data.choosing import told
from acr_ray.models import ModelCard
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.arithmetic import FOLDED, folded, has_batch_norm
from jobs._data import open_data
from jobs._main import given


def settings_for(card: ModelCard, options: argparse.Namespace) -> tuple[CertifySettings, ImageSet]:
    """Settings and images of a run: what is not given is the checkpoint's. Raises UserError where they don't fit."""
    options.block_auto = getattr(options, "settings:block") == "auto"
    if options.block_auto:
        setattr(options, "settings:block", None)
    values = {"sigma": card.sigma, "dataset": card.dataset, "device": "cuda" if options.gpus_per_actor else "cpu"}
    values |= given(CertifySettings, options)
    settings = CertifySettings.build({k: v for k, v in values.items() if v is not None}, "certify")
    if settings.root is None and settings.dataset != "digits":
        # The place that the checkpoint's file names is shown, never opened: somebody else may have written it.
        before = card.data_root
        hint = f"; the checkpoint was trained on images in {before}" if before else ""
        raise UserError(f"data.root = none: {settings.dataset} is read from a folder (--data.root PATH){hint}")
    images = open_data(settings.dataset, settings.root, settings.split, settings.class_map)
    choice = {"max_images": settings.max_images, "every": settings.every, "image_list": settings.image_list}
    total, images = len(images), select(images, **choice)
    options.chosen = told(images, total, **choice)
    if len(images.class_names) != card.num_classes:
        raise UserError(
            f"CHECKPOINT {options.checkpoint}: has {card.num_classes} classes, {settings.dataset} "
            f"{len(images.class_names)}; give the --dataset and --data.root it was trained on"
        )
    before = images.class_names
    images = images.in_order_of(card.class_names, f"CHECKPOINT {options.checkpoint}")
    if images.class_names != before:
        print("classes are in another order than the model's; they are taken by name", flush=True)
    if images.shape != tuple(card.shape):
        raise UserError(
            f"CHECKPOINT {options.checkpoint}: takes images {card.shape}, {settings.dataset} has {images.shape}"
        )
    return settings, images


def plan_of(settings: CertifySettings, images: ImageSet, card: ModelCard, model: nn.Module) -> RunPlan:
    """What the run sets out to do, with the arithmetic in words."""
    norm = "" if has_batch_norm(folded(copy.deepcopy(model).eval())) else f", {FOLDED}" if has_batch_norm(model) else ""
    arithmetic = f"{settings.dtype} on {settings.device}{norm}{', compiled' if settings.compile else ''}"
    return RunPlan(
        settings=settings, names=images.names, idx=images.idx, labels=images.labels, num_classes=card.num_classes,
        class_names=card.class_names,
        model_sha256=card.sha256, arithmetic=arithmetic, data=images.fingerprint(),
    )  # fmt: skip
