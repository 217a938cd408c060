"""SVHN's cropped digits in their standard files, ``train_32x32.mat`` and ``test_32x32.mat``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acr_ray.data.arrays import in_memory, labels_of
from acr_ray.data.fetching import local_root
from acr_ray.data.image_set import MemorySet
from acr_ray.settings import UserError
from acr_ray.settings.documents import regular_size
from acr_ray.settings.image_options import ImageOptions

CLASSES = tuple("0123456789")
MEAN, STD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)


def open_svhn(root: str, split: str, options: ImageOptions) -> MemorySet:
    """The 73,257 training or 26,032 test images, shape (3, 32, 32), in the order of the file.

    The files' label 10 is the digit 0.

    Args:
        root: folder with ``train_32x32.mat`` and ``test_32x32.mat``; one of them is enough for its split.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: the file is missing or damaged.
    """
    name = f"{split}_32x32.mat"
    path = Path(local_root(root, (name,))).expanduser() / name
    if not path.is_file():
        raise UserError(f"--data.root {root}: no {name} there")
    images, labels = _read(path)
    return in_memory(
        np.ascontiguousarray(images.transpose(3, 2, 0, 1)),
        options,
        dataset="svhn",
        split=split,
        labels=labels_of(np.where(labels == 10, 0, labels), images.shape[3], CLASSES, str(path)),
        names=[f"svhn/{split}/{i:05d}" for i in range(images.shape[3])],
        class_names=CLASSES,
        mean=MEAN,
        std=STD,
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat  # only this data set needs it

    try:
        regular_size(path)
        found = loadmat(str(path), variable_names=("X", "y"))
        images, labels = found["X"], np.asarray(found["y"]).ravel()
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[:3] != (32, 32, 3)
            or labels.dtype.kind not in "iu"
        ):
            raise ValueError(f"X {images.dtype} {images.shape}, y {labels.dtype}; expected uint8 (32, 32, 3, N)")
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"{path}: not SVHN's file, or damaged ({type(error).__name__}: {str(error)[:200]})") from None
    return images, labels
