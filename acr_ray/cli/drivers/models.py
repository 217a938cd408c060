"""A model as the user names it: a folder of ours, weights that other code wrote, or code of the user's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from acr_ray import __version__
from acr_ray.models import ModelCard, load_checkpoint
from acr_ray.models.checkpoint import hashed, sources_of
from acr_ray.models.foreign import is_foreign
from acr_ray.models.hub import fetch_folder
from acr_ray.models.importing import ImagesInfo, model_of, parse_normalization, read_weights
from acr_ray.models.others import is_own_network
from acr_ray.settings import UserError
from acr_ray.settings.documents import read_text
from acr_ray.settings.imports import ImportChoices

MOST_BYTES = 64 * 2**20  # of a list of class names
#: What is said of a file of weights alone, and the field of `ImportChoices` that holds it.
FILE_OPTIONS = {"--normalization": "normalization", "--ema": "ema", "--class-names": "class_names"}


def open_model(location: str, choices: ImportChoices, images: Callable[[], ImagesInfo]) -> tuple[nn.Module, ModelCard]:
    """Open a model, and print what was taken for what.

    Args:
        location: a folder of ours, a file of weights, ``hf://owner/name[/file]``, or ``module:function`` that returns
            the trained network.
        choices: what the user says of it.
        images: gives the images that the model must fit; not called for a folder.

    Returns:
        The model, on the CPU in float32, eval mode, without gradients; and its card.

    Raises:
        UserError: it is not there, damaged, refused, or not what the user says.
    """
    if is_own_model(location):
        return _call_own(location, choices, named(images(), choices))
    if not is_foreign(location):
        return _open_folder(location, location, choices)
    if folder := fetch_folder(location):
        return _open_folder(folder, location, choices)
    weights = read_weights(location, choices)  # before the images: what is refused needs none
    found = model_of(weights, choices, named(images(), choices))
    print(f"imported {location}: {'; '.join(found.remarks)}", flush=True)
    return found.model, found.card


def is_own_model(location: str) -> bool:
    """Return whether a CHECKPOINT is ``module:function``, code of the user's, and not a path."""
    return is_own_network(location) and not os.path.exists(location)


def _call_own(name: str, choices: ImportChoices, images: ImagesInfo) -> tuple[nn.Module, ModelCard]:
    for option, said in {"--model": choices.model, "--ema": choices.ema}.items():
        if said:
            raise UserError(f"{option}: is of a file of weights; {name} gives the network and its weights")
    mean, std = parse_normalization(choices.normalization or "none", images.shape[0])
    facts = {"sigma": choices.sigma, "code_version": __version__, "sources": sources_of(name)}
    card = ModelCard.of(name, replace(images, mean=mean, std=std), **facts)
    model = card.build().eval().requires_grad_(False)
    return model, hashed(model, card)


def named(images: ImagesInfo, choices: ImportChoices) -> ImagesInfo:
    """Return what is known of the images, with the user's names of classes if there are any."""
    return images if choices.class_names is None else replace(images, class_names=_read_names(choices.class_names))


def _read_names(path: str) -> tuple[str, ...]:
    try:
        lines = read_text(path, MOST_BYTES).splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--class-names {path}: cannot be read ({error})") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < 2 or len(set(names)) != len(names):
        raise UserError(f"--class-names {path}: needs a name a line, at least two, each once")
    return names


def _open_folder(folder: str, location: str, choices: ImportChoices) -> tuple[nn.Module, ModelCard]:
    for option, field in FILE_OPTIONS.items():
        if getattr(choices, field):
            raise UserError(f"{option}: is of a file of weights; {location} is a folder whose model.json says it")
    model, card = load_checkpoint(folder, choices.model)
    if card.sources and (changed := _changed(card)):
        print(f"warning: {changed} has changed since {location} was written; its weights may not fit it", flush=True)
    return model, card


def _changed(card: ModelCard) -> str | None:
    """The first source of the user's network that is not what it was."""
    here = sources_of(card.architecture)
    return next((file for file in sorted({**card.sources, **here}) if card.sources.get(file) != here.get(file)), None)
