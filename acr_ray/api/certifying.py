"""`acr_ray.certify`: certificates of a classifier, over Ray or in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from acr_ray.api.given import image_set, name_of, run_options, uses_ray
from acr_ray.cli.drivers.certification import certify as run_certification
from acr_ray.cli.drivers.samplers import Samplers
from acr_ray.cli.results import CertifyResult
from acr_ray.data import ImageSet
from acr_ray.models import ModelCard, load_state, state_bytes
from acr_ray.models.checkpoint import hashed
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.image_options import ImageOptions
from acr_ray.settings.imports import ImportChoices
from acr_ray.smoothing.pixels import checked_whole


def certify(
    model: Any,
    dataset: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    sigma: float | None = None,
    n: int = 100_000,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    network: str | None = None,
    normalization: str | None = None,
    ray: bool | None = None,
    actors: int | tuple[int, int] | None = None,
    gpus_per_actor: float = 0,
    checks: bool = True,
    tracking_uri: str | None = None,
    run_name: str | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    **settings: Any,
) -> CertifyResult:
    """Certify a classifier, or resume the run that ``out`` holds. Counts are the same on Ray and without it.

    Args:
        model: an `nn.Module` that maps images ``(B, C, H, W)`` in [0, 1] to logits; a pair (module, `ModelCard`); a
            checkpoint's path or URI, as ``jobs.certify`` takes it; a function that returns a module.
        dataset: a data set's name; (images, labels) as arrays; a Dataset like torchvision's; an
            `acr_ray.data.ImageSet`; a function that returns one of these. None: what the checkpoint was trained on.
        out: folder for results, a path or URI.
        sigma: standard deviation of the noise in units of an image in [0, 1], > 0; None: the checkpoint's.
        n: noise draws behind each bound.
        name: of a dataset that is an object, a part of its images' names and so of their noise. None: its class's.
        class_names: of a module's logits, in order; None: the data's.
        network: the network of a file of weights, as ``--model``.
        normalization: before a module or the network of a file, as ``--normalization``; None: a module does it itself.
        ray: True: on Ray (which is started if there is none), False: in this process. None: on Ray if this process
            has joined a cluster, or RAY_ADDRESS names one.
        actors: sampler actors on Ray, or the fewest and the most; None: all that fit.
        gpus_per_actor: 0: CPU; a fraction shares a GPU. In this process anything above 0 means its GPU.
        checks: look at some images first, and warn.
        tracking_uri: of MLflow; None: MLFLOW_TRACKING_URI, else nothing is tracked.
        run_name: of the MLflow run.
        overwrite: start anew if the folder holds another run.
        verbose: show what Ray and its workers log.
        settings: other fields of `acr_ray.settings.CertifySettings`: ``n0``, ``alpha``, ``radii``, ``seed``, ``root``,
            ``split``, ``max_images``, ``stopping``, ``certificate`` and so on.

    Raises:
        UserError: an argument, data, cluster or folder does not allow it; one line.
        CommandFailed: samplers or storage were lost; the same call resumes the run.
    """
    options = run_options(out, tracking_uri, run_name, overwrite, verbose)
    _check_fields(settings)
    changes: dict[str, Any] = {"sigma": sigma, "n": n, **settings}
    changes = {key: value for key, value in changes.items() if value is not None}
    images, data = None, None if dataset is None else name_of(dataset)
    if dataset is not None and data is None:
        images = _images(dataset, name, changes)
        data = images.dataset
        changes["split"] = images.split
    elif name is not None:
        raise UserError(f"name {name}: is of a dataset that is an object; {data} has its own")
    if data is not None:
        changes["dataset"] = data
    samplers = Samplers(_actors(actors), _gpus(gpus_per_actor), uses_ray(ray))
    choices = ImportChoices(network, normalization)
    subject = _subject(model)
    if class_names is not None and isinstance(subject, str):
        raise UserError("class_names: are of a module; a checkpoint has its own")
    if isinstance(subject, nn.Module) and data is None:
        raise UserError("dataset: missing; a module does not say which images it is for")
    return run_certification(
        subject,
        options,
        changes,
        samplers,
        choices,
        checks=checks,
        images=images,
        class_names=_names(class_names),
    )


def _subject(model: Any) -> Any:
    """A checkpoint's name, a module, or a module with its card."""
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], nn.Module):
        module, card = model
        if not isinstance(card, ModelCard):
            raise UserError(f"model: a pair of a module and a {type(card).__name__}; give (module, ModelCard)")
        built = card.build()
        # What is certified is what the card says, so that its name and hash can be trusted.
        load_state(built, state_bytes(module), "model")
        return built.eval().requires_grad_(False), hashed(built, card)
    if isinstance(model, nn.Module):
        return model
    if (found := name_of(model)) is not None:
        return found
    if callable(model):
        try:
            made = model()
        except (Exception, SystemExit) as error:  # a user's code may fail in any way
            raise UserError(f"model: its function fails ({type(error).__name__}: {error})") from error
        if isinstance(made, nn.Module):
            return made
        raise UserError(f"model: its function returns a {type(made).__name__}; needed: a torch.nn.Module")
    raise UserError(
        f"model: a {type(model).__name__}; give an nn.Module, (module, ModelCard), a checkpoint's path, or a function "
        "that returns a module"
    )


def _images(dataset: Any, name: str | None, changes: dict[str, Any]) -> ImageSet:
    framing: dict[str, Any] = {key: changes[key] for key in ("size", "resize", "crop") if key in changes}
    if "class_map" in changes:
        raise UserError("class_map: is of a data set that is read from files; give an object's own classes")
    # Read as settings, so that a mistake is named as everywhere else.
    read = CertifySettings.build({"sigma": 1.0, "dataset": "digits"} | framing, "certify")
    options = ImageOptions(read.size, read.resize, read.crop)
    images = image_set(dataset, name, changes.get("root"), changes.get("split", "test"), options)
    for line in images.remarks:
        print(line, flush=True)
    return images


def _check_fields(settings: dict[str, Any]) -> None:
    left_out = {"device", "dataset", "sigma", "n"}  # said by other arguments
    allowed = [field for field in CertifySettings.model_fields if field not in left_out]
    unknown = next((key for key in settings if key not in allowed), None)
    if unknown is not None:
        raise UserError(f"certify: there is no argument {unknown}; settings are {', '.join(allowed)}")


def _actors(actors: Any) -> tuple[int, int] | None:
    if actors is None:
        return None
    pair = actors if isinstance(actors, tuple) and len(actors) == 2 else (actors, actors)
    try:
        low, high = (checked_whole("actors", value) for value in pair)
    except ValueError as error:
        raise UserError(str(error)) from None
    if high < low:
        raise UserError(f"actors: {actors}; the second number must not be less than the first")
    return low, high


def _gpus(gpus: Any) -> float:
    if isinstance(gpus, bool) or not isinstance(gpus, (int, float)) or not 0 <= gpus <= 1024:
        raise UserError(f"gpus_per_actor: {gpus!r}; must be a number >= 0")
    return float(gpus)


def _names(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(map(str, class_names))
    if len(names) < 2 or len(set(names)) != len(names):
        raise UserError("class_names: give the name of each logit, at least two, each once")
    return names
