"""Images and their views: data sets by name, files of the usual kinds, a user's own; and who trains on what."""

from __future__ import annotations

from acr_ray.data.choosing import select
from acr_ray.data.classes import renamed
from acr_ray.data.image_set import ImageSet
from acr_ray.data.loading import batches
from acr_ray.settings import UserError
from acr_ray.settings.datasets import ALLOWED, DATASETS, OWN_SOURCE, source_of
from acr_ray.settings.image_options import ImageOptions

__all__ = ["DATASETS", "ImageSet", "batches", "open_images", "select"]


def open_images(
    dataset: str,
    root: str | None = None,
    split: str = "test",
    class_map: str | None = None,
    options: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
) -> ImageSet:
    """The images of a split. Nothing is downloaded.

    Args:
        dataset: a name of `DATASETS`, or a user's own ``module:function``, see `acr_ray.data.own.open_own`.
        root: what the data set is read from, see `acr_ray.settings.datasets.SOURCES`, or a URI of it, such as
            ``s3://…``, which each machine fetches once. Digits need none.
        split: ``train`` or ``test`` (ImageNet's ``val/``).
        class_map: a file that names class folders, see `acr_ray.data.classes.renamed`.
        options: size, crop, augmentation and normalisation, where they are not to be the data set's own.

    Raises:
        UserError: unknown name, or data that are missing or damaged; says what was expected where.
    """
    images = _open(dataset, root, split, options)
    if options.mean:
        images = images.normalised_by(options.mean, options.std)
    return images if class_map is None else images.named(renamed(images.class_names, class_map))


def _open(dataset: str, root: str | None, split: str, options: ImageOptions) -> ImageSet:
    try:
        source = source_of(dataset)
    except ValueError:
        raise UserError(f"data.dataset = {dataset}: unknown; allowed: {ALLOWED}") from None
    if split not in ("train", "test"):
        raise UserError(f"split = {split}: unknown; allowed: train, test")
    if source.root is not None and root is None:
        raise UserError(f"data.root = none: {dataset} is read from a folder (--data.root PATH): {source.root}")
    opener = source.load_opener()
    return opener(dataset, root, split, options) if source is OWN_SOURCE else opener(root, split, options)
