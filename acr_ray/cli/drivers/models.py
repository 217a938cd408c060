"""A model as the user names it: a folder of ours, or weights that other code wrote."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from acr_ray.models import ModelCard, load_checkpoint
from acr_ray.models.checkpoint import sources_of
from acr_ray.models.foreign import is_foreign
from acr_ray.models.hub import fetch_folder
from acr_ray.models.importing import ImagesInfo, model_of, read_weights
from acr_ray.settings import UserError
from acr_ray.settings.imports import ImportChoices


def open_model(location: str, choices: ImportChoices, images: Callable[[], ImagesInfo]) -> tuple[nn.Module, ModelCard]:
    """Open a model, and print what was taken for what.

    Args:
        location: a folder of ours, a file of weights, or ``hf://owner/name[/file]``.
        choices: what the user says of it.
        images: gives the images that a file of weights must fit; not called for a folder.

    Returns:
        The model, on the CPU in float32, eval mode, without gradients; and its card.

    Raises:
        UserError: it is not there, damaged, refused, or not what the user says.
    """
    if not is_foreign(location):
        return _open_folder(location, location, choices)
    if folder := fetch_folder(location):
        return _open_folder(folder, location, choices)
    weights = read_weights(location, choices)  # before the images: what is refused needs none
    found = model_of(weights, choices, images())
    print(f"imported {location}: {'; '.join(found.remarks)}", flush=True)
    return found.model, found.card


def _open_folder(folder: str, location: str, choices: ImportChoices) -> tuple[nn.Module, ModelCard]:
    for option, given in (("--normalization", choices.normalization), ("--ema", choices.ema)):
        if given:
            raise UserError(f"{option}: is of a file of weights; {location} is a folder whose model.json says it")
    model, card = load_checkpoint(folder, choices.model)
    if card.sources and (changed := _changed(card)):
        print(f"warning: {changed} has changed since {location} was written; its weights may not fit it", flush=True)
    return model, card


def _changed(card: ModelCard) -> str | None:
    """The first source of the user's network that is not what it was."""
    here = sources_of(card.architecture)
    return next((file for file in sorted({**card.sources, **here}) if card.sources.get(file) != here.get(file)), None)
