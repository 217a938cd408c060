"""Images, as jobs open them."""

from __future__ import annotations

from acr_ray.data import ImageSet, open_images


def open_data(dataset: str, root: str | None, split: str, class_map: str | None = None) -> ImageSet:
    """The images, after what is to be said of them, such as which files were left out."""
    images = open_images(dataset, root, split, class_map)
    for line in images.remarks:
        print(line, flush=True)
    return images
