"""What a certification works on: settings made of a checkpoint and the user's choices, the images, and the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from acr_ray.certification.run_plan import RunPlan
from acr_ray.cli.drivers.models import is_own_model, open_model
from acr_ray.cli.drivers.recipe_inputs import open_data
from acr_ray.data import ImageSet, open_images, select
from acr_ray.data.choosing import describe_choice
from acr_ray.models import ModelCard
from acr_ray.models.checkpoint import sources_of
from acr_ray.models.foreign import is_foreign
from acr_ray.models.importing import ImagesInfo
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.base import digest
from acr_ray.settings.datasets import needs_root
from acr_ray.settings.imports import ImportChoices
from acr_ray.settings.own_code import is_own
from acr_ray.smoothing.arithmetic import described
from acr_ray.smoothing.int8_parameters import sha256_of
from acr_ray.tracking.runs import resolve_checkpoint


@dataclass(frozen=True)
class CertificationInputs:
    """Settings and images of a certification.

    Attributes:
        chosen: in words, which images of the split these are.
    """

    settings: CertifySettings
    images: ImageSet
    chosen: str


@dataclass(frozen=True)
class Subject:
    """The model that is certified.

    Attributes:
        named: as the user named it, for messages.
        training_run: the id of the MLflow run that trained it, if that is known.
    """

    model: nn.Module
    card: ModelCard
    named: str
    training_run: str | None = None


def open_checkpoint(
    checkpoint: str,
    mlflow_uri: str,
    choices: ImportChoices,
    changes: Mapping[str, Any],
    images: ImageSet | None = None,
) -> Subject:
    """Open the model that is certified.

    Args:
        checkpoint: as the user named it.
        mlflow_uri: where ``runs:/RUN_ID`` is looked for.
        choices: what the user says of a file of weights.
        changes: fields of `CertifySettings` that the user gave; name the images that a file of weights must fit.
        images: these images, where they are open already.
    """
    named_alone = is_foreign(checkpoint) or is_own_model(checkpoint)
    location, training_run = (checkpoint, None) if named_alone else resolve_checkpoint(checkpoint, mlflow_uri)

    def info() -> ImagesInfo:
        if is_own_model(checkpoint):  # normalises itself, or as the user says
            return info_but_constants(open_split(changes) if images is None else images)
        return images_info(changes) if images is None else info_of(images)

    return Subject(*open_model(location, choices, info), checkpoint, training_run)


def open_inputs(
    card: ModelCard, checkpoint: str, changes: Mapping[str, Any], device: str, given: ImageSet | None = None
) -> CertificationInputs:
    """Make the settings and open the images of a run.

    Args:
        card: of the checkpoint; gives sigma and data set unless ``changes`` does.
        checkpoint: as the user named it, for messages.
        changes: fields of `CertifySettings` that the user gave.
        device: ``cpu`` or ``cuda``.
        given: the split that these settings name, where it is open already.

    Raises:
        UserError: settings, images and model do not fit each other.
    """
    values = {"sigma": card.sigma, "dataset": card.dataset, "device": device, **changes}
    if is_own(card.dataset) and "dataset" not in changes:
        # The name that the checkpoint's file holds is shown, never run: somebody else may have written it.
        raise UserError(
            f"CHECKPOINT {checkpoint}: was trained on data of the code {card.dataset}; to run that code, name it: "
            f"--dataset {card.dataset}"
        )
    settings = _settings(_as_trained(card, str(values["dataset"])) | values)
    # The place that the checkpoint's file names is shown, never opened: somebody else may have written it.
    hint = f"; the checkpoint was trained on images in {card.data_root}" if card.data_root else ""
    whole_split = _open_split(settings, hint) if given is None else given
    choice: dict[str, Any] = {
        "max_images": settings.max_images,
        "every": settings.every,
        "image_list": settings.image_list,
    }
    images = select(whole_split, **choice)
    chosen = describe_choice(images, len(whole_split), **choice)
    if len(images.class_names) != card.num_classes and not images.bare_labels:
        raise UserError(
            f"CHECKPOINT {checkpoint}: has {card.num_classes} classes, {settings.dataset} "
            f"{len(images.class_names)}; give the --dataset and --data.root it was trained on"
        )
    class_names, bare = images.class_names, images.bare_labels
    images = images.in_order_of(card.class_names, f"CHECKPOINT {checkpoint}")
    if images.class_names != class_names:
        print(
            _numbered(card) if bare else "classes are in another order than the model's; they are taken by name",
            flush=True,
        )
    if images.shape != tuple(card.shape):
        size = f"; --data.size {card.shape[1]} makes them so" if images.shape[0] == card.shape[0] else ""
        raise UserError(
            f"CHECKPOINT {checkpoint}: takes images {card.shape}, {settings.dataset} has {images.shape}{size}"
        )
    if settings.noise == "lattice" and settings.grid is None:
        settings = settings.change({"grid": images.grid}, "certify")
    return CertificationInputs(settings, images, chosen)


def images_info(changes: Mapping[str, Any]) -> ImagesInfo:
    """Return what a file of weights must fit: the images that the user chose. Raises UserError if none are chosen."""
    if not changes.get("dataset"):
        raise UserError("--dataset: missing; a file of weights does not say which images it is for")
    settings = _settings({**changes, "sigma": changes.get("sigma") or 1.0})  # no matter here; the file may say it
    _check_root(settings)
    options = settings.image_options
    return info_of(open_images(settings.dataset, settings.root, settings.split, settings.class_map, options))


def open_split(changes: Mapping[str, Any]) -> ImageSet:
    """Open the split that the user chose, before any model is known. Raises UserError if none is chosen."""
    if not changes.get("dataset"):
        raise UserError("--dataset: missing; the model does not say which images it is for")
    return _open_split(_settings({**changes, "sigma": changes.get("sigma") or 1.0}))


def _open_split(settings: CertifySettings, hint: str = "") -> ImageSet:
    _check_root(settings, hint)
    return open_data(settings.dataset, settings.root, settings.split, settings.class_map, settings.image_options)


def info_of(images: ImageSet) -> ImagesInfo:
    """Return what a model must know of its images."""
    return ImagesInfo(images.dataset, images.shape, images.class_names, images.mean, images.std)


def info_but_constants(images: ImageSet) -> ImagesInfo:
    """The same without mean and standard deviation, for which all images would be read."""
    channels = images.shape[0]
    return ImagesInfo(images.dataset, images.shape, images.class_names, (0.0,) * channels, (1.0,) * channels)


def _settings(values: Mapping[str, Any]) -> CertifySettings:
    return CertifySettings.build({k: v for k, v in values.items() if v is not None}, "certify")


def _check_root(settings: CertifySettings, hint: str = "") -> None:
    if settings.root is None and needs_root(settings.dataset):
        raise UserError(f"data.root = none: {settings.dataset} is read from a folder (--data.root PATH){hint}")


def _as_trained(card: ModelCard, dataset: str) -> dict[str, Any]:
    """How images became squares while the model was trained, if it was on this data set; else the model's size alone.

    For data sets of one size nothing is given, unless the training asked for it.
    """
    trained = (card.recipe or {}).get("data")
    if dataset != card.dataset or not isinstance(trained, dict):
        return {"size": card.shape[1]} if dataset == "folder" else {}
    return {name: trained[name] for name in ("size", "resize", "crop") if trained.get(name) is not None}


def _numbered(card: ModelCard) -> str:
    first = ", ".join(f"{number} as {name}" for number, name in enumerate(card.class_names[:3]))
    return f"the data's classes have no names; their numbers are taken as the model's: {first}, …"


def make_plan(
    settings: CertifySettings, images: ImageSet, card: ModelCard, model: nn.Module, int8: bytes | None = None
) -> RunPlan:
    """Make the plan of a run, with its arithmetic in words; ``int8`` is its int8 network if it has one."""
    arithmetic = described(model, settings.device, settings.dtype, settings.compile)
    if int8 is not None:
        arithmetic += f", int8 network {sha256_of(int8)}"
    if card.sources:  # the user's own code is as much of the classifier as its weights are
        sources = sources_of(card.architecture) or card.sources
        arithmetic += f", {card.architecture} of sources {digest(sources)[:16]}"
    return RunPlan(
        settings=settings,
        names=images.names,
        idx=images.idx,
        labels=images.labels,
        num_classes=card.num_classes,
        class_names=card.class_names,
        model_sha256=card.sha256,
        arithmetic=arithmetic,
        data=images.fingerprint(),
        coordinates=math.prod(images.shape),
    )
