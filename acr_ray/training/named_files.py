"""What a recipe names by path or by module: checked before anything starts, and known by its content.

A model may be replaced at its path, a method's file edited, a folder moved: what decides a run is what lies there.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable
from typing import Any

from acr_ray.data import ImageSet
from acr_ray.data.classes import places_of
from acr_ray.models import ModelCard, load_checkpoint, read_card
from acr_ray.models.checkpoint import sources_of
from acr_ray.settings import Recipe, UserError
from acr_ray.settings.methods import CatrsSettings
from acr_ray.settings.own_code import is_own, module_of
from acr_ray.settings.own_source import source_hashes
from acr_ray.settings.recipes import unusual_values
from acr_ray.storage import Folder
from acr_ray.training.initial import Contents, check_content, initial_model
from acr_ray.training.p_a_file import read_counts


def check_named(recipes: Iterable[Recipe], images: ImageSet) -> dict[str, Any]:
    """Open all that recipes name, as they will when they need it, epochs later.

    Args:
        recipes: of one run, or of the trials of a search.
        images: the training set.

    Returns:
        The contents, for `Recipe.identity`.

    Raises:
        UserError: something is missing, damaged, or made for other classes or another σ; names field and path.
    """
    contents: dict[str, Any] = {}
    for recipe in recipes:
        discard, target = recipe.discard, recipe.method.target if isinstance(recipe.method, CatrsSettings) else None
        if discard.enabled and discard.p_a_file is not None and discard.p_a_file not in contents:
            read_counts(discard.p_a_file, images, discard.draws, _sigma(recipe))
            contents[discard.p_a_file] = file_hash(discard.p_a_file)
        elif discard.enabled and discard.checkpoint is not None and discard.checkpoint not in contents:
            contents[discard.checkpoint] = f"sha256:{discarding_model(recipe, images)[1].sha256}"
        if target is not None and target not in contents:
            contents[target] = f"sha256:{_target(target, images).sha256}"
        if (init := recipe.training.init) is not None and init not in contents:
            contents[init] = f"sha256:{initial_model(recipe, images)[1].sha256}"
        if is_own(recipe.method.name) and recipe.method.name not in contents:
            contents[recipe.method.name] = source_hashes(module_of(recipe.method.name))
        if sources := sources_of(recipe.model.architecture):
            contents[recipe.model.architecture] = sources
    return contents


def warnings_of(recipe: Recipe) -> list[str]:
    """Return what is allowed and may not be meant."""
    warnings, method = unusual_values(recipe), recipe.method
    if not isinstance(method, CatrsSettings) or method.target is None:
        return warnings
    trained, used = load_checkpoint(method.target)[1].sigma, method.target_sigma
    if trained is not None and trained != used:
        warnings.append(
            f"method.target {method.target} was trained at sigma {trained}; its answers are taken at {used}"
        )
    return warnings


def discarding_model(recipe: Recipe, images: ImageSet, contents: Contents = {}) -> tuple[Any, ModelCard]:  # noqa: B006
    """Return the model of ``discard.checkpoint`` and what it is.

    Raises:
        UserError: it cannot be loaded, has other classes, was trained at another σ, or is not the one of
            ``contents``.
    """
    path = recipe.discard.checkpoint
    assert path is not None  # called only for a recipe that discards by a model
    option = f"discard.checkpoint {path}"
    # The recipe names the user's own network; the checkpoint may be one of it.
    same = read_card(path).architecture == recipe.model.architecture
    model, card = load_checkpoint(path, recipe.model.architecture if same else None)
    if card.num_classes != len(images.class_names):
        raise UserError(f"{option}: has {card.num_classes} classes, the data {len(images.class_names)}")
    places_of(images.class_names, card.class_names, option)
    sigma = _sigma(recipe)
    if sigma is not None and card.sigma is not None and card.sigma != sigma:
        raise UserError(
            f"{option}: was trained at sigma {card.sigma}, training.sigma is {sigma}; allowed: a model of the same "
            "sigma, or --discard.any_sigma true"
        )
    check_content(path, card, contents, option)
    return model, card


def check_own_source(recipe: Recipe, contents: Contents) -> None:
    """Raise UserError if this process has another source of a user's own method or network than the driver."""
    for field, name in (("method.name", recipe.method.name), ("model.architecture", recipe.model.architecture)):
        expected = contents.get(name)
        if expected is None:
            continue
        here = source_hashes(module_of(name))
        differing = sorted(file for file in {**expected, **here} if expected.get(file) != here.get(file))
        if differing:
            raise UserError(
                f"{field} = {name}: {differing[0]} is another file on worker {socket.gethostname()} than "
                "where the job was started; give all nodes the same (ray job submit --working-dir .)"
            )


def file_hash(path: str) -> str:
    """``sha256:…`` of a file's bytes, local or behind a URI."""
    head, _, name = path.rpartition("/")
    return f"sha256:{hashlib.sha256(Folder(head or '.', option=path).read_bytes(name)).hexdigest()}"


def _target(path: str, images: ImageSet) -> ModelCard:
    card = load_checkpoint(path)[1]
    if card.num_classes != len(images.class_names):
        raise UserError(f"method.target {path}: has {card.num_classes} classes, the data {len(images.class_names)}")
    places_of(images.class_names, card.class_names, f"method.target {path}")
    return card


def _sigma(recipe: Recipe) -> float | None:
    """Return what the σ of a model or file that discards must be; None: any."""
    return None if recipe.discard.any_sigma else recipe.training.sigma
