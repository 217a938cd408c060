"""ImageNet as class folders: ``train/CLASS/*.JPEG`` and ``val/CLASS/*.JPEG``."""

from __future__ import annotations

from pathlib import Path

from acr_ray.data.decoded_set import DecodedSet
from acr_ray.data.fetching import is_remote, local_root
from acr_ray.data.folders import ImageFolders, check_same, class_folders
from acr_ray.data.framing import SIZE
from acr_ray.data.pack import PackedImages, is_pack
from acr_ray.settings.image_options import ImageOptions

__all__ = ["FOLDERS", "SIZE", "imagenet_folders", "open_imagenet"]

FOLDERS = {"train": "train", "test": "val"}


def open_imagenet(root: str, split: str, options: ImageOptions = ImageOptions()) -> DecodedSet:  # noqa: B008 - frozen
    """The images under ``train/`` or ``val/``, by class folder and file name, both sorted; or out of a pack.

    A class's index is the place of its folder in ``train/``, which may be empty folders where only ``val/`` is used.
    The shorter side becomes 256 pixels, then the central 224 x 224 are what the network sees, unless the options say
    otherwise.

    Raises:
        UserError: a folder is missing or empty, or the classes of train/ and val/ differ.
    """
    if is_remote(root):
        root = local_root(root, (split, "train", FOLDERS[split]))
    if is_pack(root, split):
        return PackedImages(root, split, options=options)
    return imagenet_folders(root, split, options)


def imagenet_folders(root: str, split: str, options: ImageOptions = ImageOptions()) -> ImageFolders:  # noqa: B008
    """The class folders themselves; see `open_imagenet`."""
    classes, top = class_folders(root, "train"), FOLDERS[split]
    if split != "train":
        check_same(classes, class_folders(root, top), f"{Path(root).expanduser()}/{top}")
    return ImageFolders("imagenet", split, root, top, classes, options)
