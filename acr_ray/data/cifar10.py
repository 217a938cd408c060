"""CIFAR-10 in its standard folder, ``cifar-10-batches-py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from acr_ray.data.image_set import MemorySet
from acr_ray.data.plain_pickle import as_array, read_plain_pickle
from acr_ray.data.views import crop_and_flip
from acr_ray.settings import UserError

FOLDER = "cifar-10-batches-py"
FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SHAPE = (3, 32, 32)


def open_cifar10(root: str, split: str) -> MemorySet:
    """The 50,000 training or 10,000 test images, shape (3, 32, 32), in the order of the files.

    Args:
        root: the folder ``cifar-10-batches-py`` itself, or the one that holds it.
        split: ``train`` or ``test``.

    Raises:
        UserError: folder or file missing, damaged, or a pickle that holds anything but the images.
    """
    folder = _find_folder(root, split)
    images, labels = zip(*(_read_batch(folder / name) for name in FILES[split]), strict=True)
    count = sum(len(part) for part in labels)
    return MemorySet(
        np.concatenate(images),
        crop_and_flip,
        dataset="cifar10",
        split=split,
        labels=np.concatenate(labels),
        names=[f"cifar10/{split}/{i:05d}" for i in range(count)],
        class_names=CLASSES,
        mean=MEAN,
        std=STD,
    )


def _find_folder(root: str, split: str) -> Path:
    given = Path(root).expanduser()
    for folder in (given, given / FOLDER):
        missing = [name for name in FILES[split] if not (folder / name).is_file()]
        if not missing:
            return folder
        if len(missing) < len(FILES[split]):
            raise UserError(f"--data.root {root}: no {missing[0]} in {folder}")
    raise UserError(f"--data.root {root}: no {FOLDER} folder with data_batch_1 … data_batch_5 and test_batch")


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = read_plain_pickle(path)
    try:
        images, labels = as_array(_entry(batch, "data")), as_array(_entry(batch, "labels")).astype(np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3072) or labels.ndim != 1:
            raise ValueError(f"data {images.dtype} {images.shape} for {len(labels)} labels; expected uint8 (N, 3072)")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(CLASSES):
            raise ValueError("labels outside 0 to 9")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not a batch in CIFAR-10's format ({error})") from None
    return images.reshape(-1, *SHAPE), labels


def _entry(batch: Any, name: str) -> Any:
    if not isinstance(batch, dict):
        raise ValueError("no dictionary")
    for key in (name.encode(), name):  # written by Python 2, by Python 3
        if key in batch:
            return batch[key]
    raise ValueError(f"no entry {name!r}")
