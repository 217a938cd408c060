"""The weights that a run begins with, if it fine-tunes a model that was trained before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from acr_ray.data import ImageSet
from acr_ray.models import ModelCard, load_checkpoint
from acr_ray.settings import Recipe, UserError

Contents = Mapping[str, Any]  # path → "sha256:…"; name of an own method → the hashes of its sources
NORMALISATION = "normalize."


def initial_model(recipe: Recipe, images: ImageSet) -> tuple[nn.Module, ModelCard]:
    """Return the model of ``training.init`` and what it is.

    Raises:
        UserError: it cannot be loaded, is of another architecture, or takes images of other channels.
    """
    path = recipe.training.init
    assert path is not None  # called only for a recipe that has one
    option = f"training.init {path}"
    model, card = load_checkpoint(path)
    if card.architecture != recipe.model.architecture:
        raise UserError(
            f"{option}: is a {card.architecture}, the recipe's a {recipe.model.architecture}; "
            f"--model.architecture {card.architecture} trains that"
        )
    if card.shape[0] != images.shape[0]:
        raise UserError(f"{option}: takes images of {card.shape[0]} channels, the data have {images.shape[0]}")
    return model, card


def load_initial(model: nn.Module, recipe: Recipe, images: ImageSet, contents: Contents) -> list[str]:
    """Put the weights of ``training.init`` into a new model of the recipe; nothing where the recipe has none.

    The model normalises by the data's constants, and if the classes are not as many, its last layer stays new.

    Args:
        model: freshly initialised, on the CPU.
        recipe: what is trained.
        images: the training split.
        contents: hashes of what the recipe names, see `check_named`.

    Returns:
        Lines for the user on what was not taken.

    Raises:
        UserError: the checkpoint does not fit, or is not the one of ``contents``.
    """
    path = recipe.training.init
    if path is None:
        return []
    option = f"training.init {path}"
    loaded, card = initial_model(recipe, images)
    check_content(path, card, contents, option)
    own = model.state_dict()
    given = {name: t for name, t in loaded.state_dict().items() if not name.startswith(NORMALISATION)}
    other = [name for name, tensor in given.items() if tensor.shape != own[name].shape]
    layers = {name.rpartition(".")[0] for name in other}
    lines = []
    if other:
        if card.num_classes == len(images.class_names) or len(layers) != 1:
            first = other[0]
            raise UserError(
                f"{option}: {first} is {tuple(given[first].shape)}, needed {tuple(own[first].shape)}: trained on "
                f"images of {card.shape[1]}x{card.shape[2]}, the data's are {images.shape[1]}x{images.shape[2]}"
            )
        lines.append(
            f"{option}: has {card.num_classes} classes, the data {len(images.class_names)}: the last layer, "
            f"{layers.pop()}, is new"
        )
    if (card.mean, card.std) != (images.mean, images.std):
        lines.append(
            f"{option}: normalised inputs by mean {card.mean} and std {card.std}; this run does by the data's, "
            f"{images.mean} and {images.std} (data.mean and data.std change that)"
        )
    model.load_state_dict(own | {name: tensor for name, tensor in given.items() if name not in other})
    return lines


def check_content(path: str, card: ModelCard, contents: Contents, option: str) -> None:
    """Raise UserError if the model at a path is not the one that lay there when the run began."""
    expected = contents.get(path, f"sha256:{card.sha256}")
    if expected != f"sha256:{card.sha256}":
        raise UserError(
            f"{option}: another model lies there than when the run began ({card.sha256[:12]}, was "
            f"{expected.removeprefix('sha256:')[:12]}); put the first one back, or start anew with --overwrite"
        )
