"""Images in class folders, read from disk when they are asked for."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from acr_ray.data.decoded_set import DecodedSet
from acr_ray.data.decoding import MOST_BYTES, decoded_image
from acr_ray.data.framing import SIZE, Framing
from acr_ray.data.listing import ENDINGS, LeftOut, image_files, loose_files, remark
from acr_ray.settings import UserError
from acr_ray.settings.datasets import SOURCES
from acr_ray.settings.documents import read_file
from acr_ray.settings.image_options import ImageOptions

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class ImageFolders(DecodedSet):
    """Images that stay on disk until they are loaded, by class folder and file name, both sorted; 0, 1, … by number.

    Names are paths below the root, such as ``val/n01440764/ILSVRC2012_val_00000293.JPEG``.

    Args:
        dataset, split: as `ImageSet`.
        root: what holds the folders.
        top: folder of the split below it; "" for the root itself.
        classes: names of the class folders.
        options: the user's.

    Raises:
        UserError: a folder is missing or holds no image.
    """

    of_files = True

    def __init__(
        self, dataset: str, split: str, root: str, top: str, classes: Sequence[str], options: ImageOptions
    ) -> None:
        self._root = Path(root).expanduser()
        names: list[str] = []
        labels: list[int] = []
        left_out: LeftOut = Counter()
        loose_files(self._root / top, left_out)
        for label, folder in enumerate(classes):
            below = f"{top}/{folder}" if top else folder
            files = image_files(self._root / below, left_out)
            if not files:
                raise UserError(
                    f"--data.root {root}: no image in {below} ({', '.join(ENDINGS)}); remove the folder, or put some in"
                )
            names += [f"{below}/{file}" for file in files]
            labels += [label] * len(files)
        super().__init__(**settings_of(dataset, options, split, np.array(labels), names, classes))
        said = remark(self._root / top, left_out)
        self.remarks = (said,) if said else ()
        self._files = self.names  # of the full split; subsets share them

    def path_of(self, row: int) -> Path:
        """The file of a row of the full split."""
        return self._root / self._files[row]

    def _where(self, row: int) -> str:
        return str(self.path_of(row))

    def _open(self, row: int) -> Image.Image:
        return decoded_image(self.encoded(row), self.path_of(row))

    def encoded(self, row: int) -> bytes:
        path = self.path_of(row)
        try:
            return read_file(path, MOST_BYTES)
        except FileNotFoundError:
            raise UserError(f"{path}: no such image file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None

    def _content(self) -> bytes:
        """File sizes: reading 150 GB to name a data set would cost more than it proves."""
        try:
            sizes = [os.path.getsize(self._root / name) for name in self.names]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
        return hashlib.sha256(np.array(sizes, dtype="<i8").tobytes() + self._framing.identity).digest()


def settings_of(
    dataset: str,
    options: ImageOptions,
    split: str,
    labels: np.ndarray,
    names: Sequence[str],
    classes: Sequence[str],
) -> dict:
    """What a set of image files, in folders or packed, gives to `DecodedSet`."""
    framing = Framing.of(options, SIZE, margin=True)
    default = SOURCES[dataset].augmentation
    return {
        "framing": framing,
        "augmentation": default if options.augmentation == "default" else options.augmentation,
        "dataset": dataset,
        "split": split,
        "labels": labels,
        "names": names,
        "class_names": classes,
        "shape": (3, framing.size, framing.size),
        "mean": MEAN,
        "std": STD,
    }


def class_folders(root: str, top: str) -> list[str]:
    """Names of the class folders there; numbers in the order of numbers. Raises UserError if there are none."""
    try:
        with os.scandir(Path(root).expanduser() / top) as entries:
            found = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        if all(name.isascii() and name.isdecimal() for name in found):
            found.sort(key=lambda name: (int(name[:4000]), name))  # 0, 1, … 10, not 0, 1, 10, 2
    except OSError:
        found = []
    if not found:
        hint = " (they may be empty where only val/ is used)" if top == "train" else ""
        where = f"no {top} folder with a folder for each class" if top else "no folder for each class"
        raise UserError(f"--data.root {root}: {where}{hint}")
    return found


def check_same(classes: list[str], others: list[str], where: str) -> None:
    """Raise UserError if two splits have not the same class folders; names the first that differs."""
    for folder in sorted(set(classes) ^ set(others)):
        wrong = "no folder for class" if folder in classes else "unknown class folder"
        raise UserError(f"{where}: {wrong} {folder}; train/ and {where} must hold the same classes")
