"""Images and checked recipes, as commands open them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from acr_ray.data import ImageSet, open_images
from acr_ray.models import build_model
from acr_ray.settings import Recipe
from acr_ray.settings.image_options import ImageOptions
from acr_ray.training.initial import load_initial
from acr_ray.training.methods import build_method
from acr_ray.training.named_files import check_named, warnings_of


def open_data(
    dataset: str,
    root: str | None,
    split: str,
    class_map: str | None = None,
    options: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
) -> ImageSet:
    """Open the images, and print remarks on them, such as which files were left out."""
    images = open_images(dataset, root, split, class_map, options)
    for line in images.remarks:
        print(line, flush=True)
    return images


def check_recipe(recipe: Recipe, images: ImageSet, others: Sequence[Recipe] = ()) -> dict[str, Any]:
    """Build what a recipe needs and open what it names; print what is allowed and may not be meant.

    Args:
        others: recipes of the same search that name other files.

    Returns:
        The contents of the named files, see `check_named`.

    Raises:
        UserError: something is missing or doesn't fit.
    """
    model = build_model(
        recipe.model.architecture, len(images.class_names), images.shape, images.mean, images.std, seed=0
    )
    build_method(recipe)
    for line in load_initial(model, recipe, images, {}):
        print(line, flush=True)
    contents = check_named([recipe, *others], images)
    for warning in warnings_of(recipe):
        print(f"warning: {warning}", flush=True)
    return contents
