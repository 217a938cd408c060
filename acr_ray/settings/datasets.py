"""The data sets by name: what each one's root holds, and what opens it. Add one here, and its reader beside the others.

An opener is ``module:function`` in text, so that settings and ``--help`` load neither torch nor PIL. It is called with
(root, split, `ImageOptions`) and gives an `acr_ray.data.ImageSet`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from acr_ray.settings.image_options import Augmentation
from acr_ray.settings.own_code import is_own


@dataclass(frozen=True)
class DataSource:
    """One data set, or one way of keeping data.

    Attributes:
        opener: ``module:function``, see above.
        root: what ``--data.root`` names; None: no root is needed.
        augmentation: of the training view, if the recipe asks for the default.
        grid: steps of its pixels' grid in a unit; of float pixels the one that lattice noise rounds them to.
    """

    opener: str
    root: str | None
    augmentation: Augmentation
    grid: int = 255

    def load_opener(self) -> Callable[..., Any]:
        """Import what opens it."""
        module, _, name = self.opener.partition(":")
        return getattr(importlib.import_module(module), name)


SOURCES = {
    "digits": DataSource("acr_ray.data.digits:open_digits", None, "none", grid=16),
    "cifar10": DataSource("acr_ray.data.cifar10:open_cifar10", "cifar-10-batches-py or the folder above", "crop_flip"),
    "imagenet": DataSource("acr_ray.data.imagenet:open_imagenet", "train/ and val/ class folders", "resized_crop"),
    "cifar100": DataSource("acr_ray.data.cifar100:open_cifar100", "cifar-100-python or the folder above", "crop_flip"),
    "svhn": DataSource("acr_ray.data.svhn:open_svhn", "train_32x32.mat and test_32x32.mat", "none"),
    "mnist": DataSource("acr_ray.data.mnist:open_mnist", "its four idx files, also packed (.gz)", "none"),
    "fashion_mnist": DataSource("acr_ray.data.mnist:open_fashion_mnist", "its four idx files", "none"),
    "folder": DataSource(
        "acr_ray.data.own_folder:open_folder", "class folders, below train/ and test/ or not", "resized_crop"
    ),
    "npz": DataSource("acr_ray.data.npz:open_npz", "an .npz file, or train.npz and test.npz", "none"),
    "parquet": DataSource("acr_ray.data.parquet:open_parquet", "Parquet files of the hub's layout", "none"),
}
#: A user's own ``module:function``; it is given the root if it takes one.
OWN_SOURCE = DataSource("acr_ray.data.own:open_own", None, "none")
OWN_DATASET = "module:function"
DATASETS = tuple(SOURCES)
ALLOWED = f"{', '.join(DATASETS)}, or your own {OWN_DATASET}"


def check_dataset(name: str) -> str:
    """Return the name of a data set. Raises ValueError if it is none."""
    if name not in SOURCES and not is_own(name):
        raise ValueError("unknown data set")
    return name


def source_of(name: str) -> DataSource:
    """Return what a data set is. Raises ValueError if there is none of this name."""
    return SOURCES.get(check_dataset(name), OWN_SOURCE)


def grid_of(name: str | None) -> int:
    """Return the grid of a data set's pixels; of one that is not known that of 8-bit images."""
    return SOURCES[name].grid if name in SOURCES else OWN_SOURCE.grid


def needs_root(name: str) -> bool:
    """Return whether a data set is read from a place that the user must name."""
    return source_of(name).root is not None
