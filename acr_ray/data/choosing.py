"""Which images of a set: K at random, every K-th, or those of a list."""

from __future__ import annotations

import numpy as np

from acr_ray.data.chance import hashed
from acr_ray.data.image_set import ImageSet
from acr_ray.settings import UserError
from acr_ray.settings.documents import read_text

MOST_BYTES = 2**29  # of a list of images

#: Seed of the choice that ``max_images`` makes.
CHOICE = 0


def select(
    images: ImageSet, *, max_images: int | None = None, every: int | None = None, image_list: str | None = None
) -> ImageSet:
    """The chosen images; choices narrow one another: the list, then every K-th, then K at random.

    Args:
        images: what to choose from.
        max_images: at most K, K >= 1: those whose index within the full split hashes lowest, in the set's order. Sets
            are often sorted by class, so the first K, or K evenly spaced ones, may be of one class. The choice is the
            same for every run, model and seed, and a larger K keeps the images of a smaller one.
        every: those whose index within the full split is 0, K, 2K, …, as in the field; K >= 1.
        image_list: path of a text file with one stable name a line, in the order wanted; blank lines and lines that
            begin with ``#`` are skipped.

    Raises:
        UserError: a number < 1; a list that cannot be read, names an image that is not there or one twice; nothing
            is left.
    """
    for option, value in (("--max-images", max_images), ("--every", every)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: allowed: >= 1")
    if image_list is not None:
        images = images.subset(_listed(images, image_list))
    if every is not None:
        images = images.subset(np.flatnonzero(images.idx % every == 0))
    if max_images is not None:
        order = np.argsort(hashed(CHOICE, images.idx), kind="stable")
        images = images.subset(np.sort(order[:max_images]))
    if not len(images):
        raise UserError(f"{images.dataset} {images.split}: no image is left of the chosen ones")
    return images


def describe_choice(
    chosen: ImageSet, total: int, max_images: int | None, every: int | None, image_list: str | None
) -> str:
    """Which images these are, of ``total`` and of how many classes, as text."""
    how = [f"--every {every}"] if every is not None else []
    how += [f"those of {image_list}"] if image_list is not None else []
    how += ["a fixed random choice"] if max_images is not None and len(chosen) < total else []
    classes = f"{len(np.unique(chosen.labels))} of {len(chosen.class_names)} classes"
    return f"{len(chosen)} of {total} images ({', '.join([*how, classes])})"


def _listed(images: ImageSet, image_list: str) -> list[int]:
    try:
        lines = read_text(image_list, MOST_BYTES).splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--image-list {image_list}: cannot be read ({error})") from None
    place = {name: item for item, name in enumerate(images.names)}
    found: dict[int, None] = {}
    for number, name in enumerate((line.strip() for line in lines), start=1):
        if not name or name.startswith("#"):
            continue
        if name not in place:
            where = f"{images.dataset} {images.split}, whose names look like {images.names[0]}"
            raise UserError(f"--image-list {image_list}: line {number}: {name} is not in {where}")
        if place[name] in found:
            raise UserError(f"--image-list {image_list}: line {number}: {name} is listed twice")
        found[place[name]] = None
    return list(found)
