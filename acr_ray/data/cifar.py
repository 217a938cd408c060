"""What CIFAR-10 and CIFAR-100 have in common: 32x32 pixels in pickles, read without running what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acr_ray.data.arrays import in_memory
from acr_ray.data.fetching import local_root
from acr_ray.data.image_set import MemorySet
from acr_ray.data.plain_pickle import as_array, read_plain_pickle
from acr_ray.settings import UserError
from acr_ray.settings.image_options import ImageOptions

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class CifarLayout:
    """One of the two.

    Attributes:
        dataset: its name in the settings.
        title: its name in messages.
        folder: that holds its files.
        files: of each split.
        said: the files in words, for messages.
        labels: the entry of a file that holds the labels.
        classes: their names.
        mean, std: per channel, of inputs in [0, 1].
    """

    dataset: str
    title: str
    folder: str
    files: Mapping[str, tuple[str, ...]]
    said: str
    labels: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def open_cifar(layout: CifarLayout, root: str, split: str, options: ImageOptions) -> MemorySet:
    """The images of a split, shape (3, 32, 32), in the order of the files; see `open_cifar10`."""
    files = layout.files[split]
    folder = _find_folder(layout, local_root(root, (layout.folder, *files)), root, files)
    images, labels = zip(*(_read_batch(layout, folder / name) for name in files), strict=True)
    count = sum(len(part) for part in labels)
    return in_memory(
        np.concatenate(images),
        options,
        dataset=layout.dataset,
        split=split,
        labels=np.concatenate(labels),
        names=[f"{layout.dataset}/{split}/{i:05d}" for i in range(count)],
        class_names=layout.classes,
        mean=layout.mean,
        std=layout.std,
    )


def _find_folder(layout: CifarLayout, here: str, root: str, files: tuple[str, ...]) -> Path:
    given = Path(here).expanduser()
    for folder in (given, given / layout.folder):
        missing = [name for name in files if not (folder / name).is_file()]
        if not missing:
            return folder
        if len(missing) < len(files):
            raise UserError(f"--data.root {root}: no {missing[0]} in {folder}")
    raise UserError(f"--data.root {root}: no {layout.folder} folder with {layout.said}")


def _read_batch(layout: CifarLayout, path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = read_plain_pickle(path)
    most = len(layout.classes) - 1
    try:
        images, labels = as_array(_entry(batch, "data")), as_array(_entry(batch, layout.labels)).astype(np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3072) or labels.ndim != 1:
            raise ValueError(f"data {images.dtype} {images.shape} for {len(labels)} labels; expected uint8 (N, 3072)")
        if len(labels) and not 0 <= labels.min() <= labels.max() <= most:
            raise ValueError(f"labels outside 0 to {most}")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not a batch in {layout.title}'s format ({error})") from None
    return images.reshape(-1, *SHAPE), labels


def _entry(batch: Any, name: str) -> Any:
    if not isinstance(batch, dict):
        raise ValueError("no dictionary")
    for key in (name.encode(), name):  # written by Python 2, by Python 3
        if key in batch:
            return batch[key]
    raise ValueError(f"no entry {name!r}")
