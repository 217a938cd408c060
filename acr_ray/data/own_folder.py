"""A user's images: ``train/CLASS/*`` and ``test/CLASS/*``, or one list of class folders, or a pack of them."""

from __future__ import annotations

from pathlib import Path

from acr_ray.data.decoded_set import DecodedSet
from acr_ray.data.fetching import is_remote, local_root
from acr_ray.data.folders import ImageFolders, check_same, class_folders
from acr_ray.data.pack import PackedImages, is_pack
from acr_ray.settings import UserError
from acr_ray.settings.image_options import ImageOptions

HELD_OUT = ("test", "val", "validation")  # what a split beside train/ may be called, in order of preference


def open_folder(root: str, split: str, options: ImageOptions) -> DecodedSet:
    """A user's class folders, or what jobs.pack has made of them.

    Args:
        root: holds ``train/`` and one of ``test/``, ``val/``, ``validation/`` with a folder for each class; or only one
            of these; or the class folders themselves, which then are both splits.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: a folder is missing or empty, or the classes of both splits differ.
    """
    if is_remote(root):
        here = local_root(root, ("train", *HELD_OUT))
        root = here if any(Path(here).iterdir()) else local_root(root)
    if is_pack(root, split):
        return PackedImages(root, split, "folder", options)
    return own_folders(root, split, options)


def own_folders(root: str, split: str, options: ImageOptions = ImageOptions()) -> ImageFolders:  # noqa: B008
    """The class folders themselves; see `open_folder`."""
    place = Path(root).expanduser()
    tops = [name for name in ("train", *HELD_OUT) if _has_folders(place / name)]
    if not tops:
        images = ImageFolders("folder", split, root, "", class_folders(root, ""), options)
        images.remarks += (f"--data.root {root}: one list of class folders; train and test are both all of it",)
        return images
    own = ["train"] if split == "train" else [top for top in tops if top != "train"]
    if not own or own[0] not in tops:
        raise UserError(f"--data.root {root}: no {' or '.join(own or HELD_OUT)} folder with a folder for each class")
    top = own[0]
    classes = class_folders(root, top if "train" not in tops else "train")
    if top != "train" and "train" in tops:
        check_same(classes, class_folders(root, top), f"{root}/{top}")
    images = ImageFolders("folder", split, root, top, classes, options)
    if len(own) > 1:
        images.remarks += (f"--data.root {root}: {top}/ is taken as the test split, {', '.join(own[1:])} left out",)
    return images


def _has_folders(place: Path) -> bool:
    """Whether a folder holds class folders; one of a class called train or test holds images."""
    return place.is_dir() and any(p.is_dir() and not p.name.startswith(".") for p in place.iterdir())
