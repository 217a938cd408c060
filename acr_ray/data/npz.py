"""Images and labels in numpy's ``.npz`` files, read without running what they say."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from acr_ray.data.arrays import labelled
from acr_ray.data.fetching import local_root
from acr_ray.data.image_set import MemorySet
from acr_ray.settings import UserError
from acr_ray.settings.documents import regular_size
from acr_ray.settings.image_options import ImageOptions

IMAGES, LABELS, NAMES = ("images", "image", "x", "data"), ("labels", "label", "y", "targets"), "class_names"
SPLITS = {"train": ("train",), "test": ("test", "val", "validation")}
MOST_HEADER = 10_000  # characters


def open_npz(root: str, split: str, options: ImageOptions) -> MemorySet:
    """Images and labels of a file, see `acr_ray.data.arrays.pixels_of` and `labels_of`.

    Args:
        root: a folder with ``train.npz`` and ``test.npz`` (or ``val.npz``, ``validation.npz``); or one file. Arrays are
            called ``images`` (or x, data) and ``labels`` (or y, targets), in one file for both splits ``x_train``,
            ``y_train``, ``x_test``, ``y_test`` and so on; ``class_names``, text, may name the classes.
        split: ``train`` or ``test``. One file without names of splits is both.
        options: the user's.

    Raises:
        UserError: a file or an array is missing, damaged or of another kind; it names what is there.
    """
    path = _find(Path(local_root(root)).expanduser(), root, split)
    with _Arrays(path) as arrays:
        found = arrays.pair(split)
        one_list = path == Path(root).expanduser() and not arrays.splits
        names = arrays.class_names()
    images = labelled(*found, options, dataset="npz", split=split, where=str(path), class_names=names)
    if one_list:
        images.remarks += (f"{path}: one list of images; train and test are both all of it",)
    return images


def _find(place: Path, root: str, split: str) -> Path:
    if not place.is_dir():
        if not place.exists():
            raise UserError(f"--data.root {root}: no such file or folder")
        return place
    names = [f"{name}.npz" for name in SPLITS[split]]
    found = next((place / name for name in names if (place / name).is_file()), None)
    if found is None:
        raise UserError(f"--data.root {root}: no {' or '.join(names)} there; or name one .npz file")
    return found


class _Arrays:
    """The arrays of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            regular_size(path)
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise UserError(f"{path}: not an .npz file, or damaged ({error})") from None
        self.names = [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def splits(self) -> bool:
        """Whether the names of arrays tell splits."""
        return any(self._named(IMAGES, part) for parts in SPLITS.values() for part in parts)

    def pair(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of a split."""
        for part in SPLITS[split] if self.splits else ("",):
            images, labels = self._named(IMAGES, part), self._named(LABELS, part)
            if images and labels:
                return self._read(images), self._read(labels)
        wanted = "x_train, y_train, x_test and y_test" if self.splits else "images and labels (or x and y)"
        raise UserError(f"{self._path}: holds {', '.join(self.names[:12]) or 'no array'}; needed: {wanted}")

    def class_names(self) -> tuple[str, ...] | None:
        if NAMES not in self.names:
            return None
        found = self._read(NAMES)
        if found.ndim != 1 or found.dtype.kind != "U" or len(set(found.tolist())) != len(found):
            raise UserError(f"{self._path}: {NAMES}: {found.dtype} {found.shape}; allowed: text, all different")
        return tuple(str(name) for name in found)

    def _named(self, kinds: tuple[str, ...], part: str) -> str | None:
        wanted = [name for kind in kinds for name in ((f"{kind}_{part}", f"{part}_{kind}") if part else (kind,))]
        return next((name for name in self.names if name.lower() in wanted), None)

    def _read(self, name: str) -> np.ndarray:
        """An array; its size in the file is compared with what it says before anything is made."""
        try:
            inner = self._zip.getinfo(f"{name}.npy")
            with self._zip.open(inner) as stream:
                self._check_header(stream, inner.file_size)
            with self._zip.open(inner) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=MOST_HEADER)
        except Exception as error:  # a damaged file can raise nearly anything
            text = "text or objects as pickles; refused, not run" if "Object arrays" in str(error) else str(error)[:200]
            raise UserError(f"{self._path}: {name}: cannot be read ({text})") from None

    @staticmethod
    def _check_header(stream: Any, size: int) -> None:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read(stream, max_header_size=MOST_HEADER)
        if dtype.hasobject:
            raise ValueError("Object arrays are pickles")
        if math.prod(shape) * dtype.itemsize != size - stream.tell():
            raise ValueError(f"{dtype} {shape} does not fit into {size:,} bytes")
