"""Images and their views: digits, CIFAR-10, ImageNet folders; who trains on what in which step."""

from __future__ import annotations

from acr_ray.data.choosing import select
from acr_ray.data.cifar10 import FILES as CIFAR10_FILES
from acr_ray.data.cifar10 import FOLDER as CIFAR10
from acr_ray.data.cifar10 import open_cifar10
from acr_ray.data.classes import renamed
from acr_ray.data.digits import open_digits
from acr_ray.data.fetching import fetched, is_remote
from acr_ray.data.image_set import ImageSet
from acr_ray.data.imagenet import FOLDERS, open_imagenet
from acr_ray.data.loading import batches
from acr_ray.data.pack import PackedImages, is_pack
from acr_ray.settings import UserError
from acr_ray.settings.recipe import DATASETS

__all__ = ["DATASETS", "ImageSet", "batches", "open_images", "select"]


def open_images(dataset: str, root: str | None = None, split: str = "test", class_map: str | None = None) -> ImageSet:
    """The images of a split. Nothing is downloaded.

    Args:
        dataset: ``digits`` (embedded), ``cifar10`` or ``imagenet``.
        root: folder that holds ``cifar-10-batches-py``, or ``train/`` and ``val/`` class folders, or what jobs.pack
            has made of those; or a URI of one, such as ``s3://…``, which each machine fetches once. Digits need none.
        split: ``train`` or ``test`` (ImageNet's ``val/``).
        class_map: a file that names class folders, see `acr_ray.data.classes.renamed`.

    Raises:
        UserError: unknown name, or data that are missing or damaged; says what was expected where.
    """
    images = _open(dataset, root, split)
    return images if class_map is None else images.named(renamed(images.class_names, class_map))


def _open(dataset: str, root: str | None, split: str) -> ImageSet:
    if dataset not in DATASETS:
        raise UserError(f"data.dataset = {dataset}: unknown; allowed: {', '.join(DATASETS)}")
    if split not in ("train", "test"):
        raise UserError(f"split = {split}: unknown; allowed: train, test")
    if dataset == "digits":
        return open_digits(split)
    if root is None:
        raise UserError(f"data.root = none: {dataset} is read from a folder (--data.root PATH)")
    if is_remote(root):
        # Both splits where one needs the other: a class's index is the place of its folder in train/.
        parts = (CIFAR10, *CIFAR10_FILES[split]) if dataset == "cifar10" else (split, "train", FOLDERS[split])
        root = fetched(root, parts)
    if dataset == "cifar10":
        return open_cifar10(root, split)
    return PackedImages(root, split) if is_pack(root, split) else open_imagenet(root, split)
