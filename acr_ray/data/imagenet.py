"""ImageNet as class folders: ``train/CLASS/*.JPEG`` and ``val/CLASS/*.JPEG``."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from acr_ray.data.decoding import MOST_BYTES, decoded_image
from acr_ray.data.image_set import ImageSet
from acr_ray.data.listing import ENDINGS, LeftOut, image_files, loose_files, remark
from acr_ray.data.views import random_resized_crop
from acr_ray.settings import UserError
from acr_ray.settings.documents import read_file

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, RESIZED = 224, 256
FOLDERS = {"train": "train", "test": "val"}


def open_imagenet(root: str, split: str, size: int = SIZE) -> ImageFolders:
    """The images under ``train/`` or ``val/``, by class folder and file name, both sorted; folders 0, 1, … by number.

    A class's index is the place of its folder in ``train/``, which may be empty folders where only ``val/`` is used.

    Raises:
        UserError: a folder is missing or empty, or the classes of train/ and val/ differ.
    """
    return ImageFolders(root, split, size)


def image_functions() -> ModuleType:
    """torchvision's functions on images; loaded when ImageNet is opened, since all else does without their seconds."""
    from torchvision.transforms.v2 import functional

    return functional


class ImageFolders(ImageSet):
    """Images that stay on disk until they are loaded. Names: ``val/n01440764/ILSVRC2012_val_00000293.JPEG``."""

    in_memory = False

    def __init__(self, root: str, split: str, size: int) -> None:
        image_functions()  # here, for the processes that will read images as well
        self._root, self._size = Path(root).expanduser(), size
        classes = _class_folders(self._root, "train")
        top = FOLDERS[split]
        if split != "train":
            _check_same(classes, _class_folders(self._root, top), f"{self._root}/{top}")
        names: list[str] = []
        labels: list[int] = []
        left_out: LeftOut = Counter()
        loose_files(self._root / top, left_out)
        for label, folder in enumerate(classes):
            files = image_files(self._root / top / folder, left_out)
            if not files:
                raise UserError(f"--data.root {root}: no image in {top}/{folder} ({', '.join(ENDINGS)})")
            names += [f"{top}/{folder}/{file}" for file in files]
            labels += [label] * len(files)
        super().__init__(
            dataset="imagenet",
            split=split,
            labels=np.array(labels),
            names=names,
            class_names=classes,
            shape=(3, size, size),
            mean=MEAN,
            std=STD,
        )
        said = remark(f"{self._root}/{top}", left_out)
        self.remarks = (said,) if said else ()
        self._files = self.names  # of the full split; subsets share them

    def _evaluation_view(self, rows: np.ndarray) -> np.ndarray:
        """Shorter side to 256 pixels, then the central 224 x 224."""
        F, found = image_functions(), np.empty((len(rows), *self.shape), dtype=np.uint8)
        shorter = self._size * RESIZED // SIZE
        for place, row in enumerate(rows):
            image = F.center_crop(F.resize(self._open(row), [shorter]), [self._size, self._size])
            found[place] = np.asarray(image).transpose(2, 0, 1)
        return found

    def _training_view(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Random crop, resized to 224 x 224, mirrored in half of the cases."""
        F, found = image_functions(), np.empty((len(rows), *self.shape), dtype=np.uint8)
        for place, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            image = self._open(row)
            *box, mirrored = random_resized_crop(image.height, image.width, int(seed))
            image = F.resized_crop(image, *box, [self._size, self._size])
            found[place] = np.asarray(F.horizontal_flip(image) if mirrored else image).transpose(2, 0, 1)
        return found

    def path_of(self, row: int) -> Path:
        """The file of a row of the full split."""
        return self._root / self._files[row]

    def _open(self, row: int) -> Image.Image:
        path = self.path_of(row)
        try:
            content = read_file(path, MOST_BYTES)
        except FileNotFoundError:
            raise UserError(f"{path}: no such image file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        return decoded_image(content, path)

    def _content(self) -> bytes:
        """File sizes: reading 150 GB to name a data set would cost more than it proves."""
        try:
            sizes = [os.path.getsize(self._root / name) for name in self.names]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
        return hashlib.sha256(np.array(sizes, dtype="<i8").tobytes()).digest()


def _class_folders(root: Path, top: str) -> list[str]:
    try:
        with os.scandir(root / top) as entries:
            found = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        if all(name.isascii() and name.isdecimal() for name in found):
            found.sort(key=lambda name: (int(name[:4000]), name))  # 0, 1, … 10, not 0, 1, 10, 2
    except OSError:
        found = []
    if not found:
        hint = " (they may be empty where only val/ is used)" if top == "train" else ""
        raise UserError(f"--data.root {root}: no {top} folder with a folder for each class{hint}")
    return found


def _check_same(classes: list[str], others: list[str], where: str) -> None:
    for folder in sorted(set(classes) ^ set(others)):
        wrong = "no folder for class" if folder in classes else "unknown class folder"
        raise UserError(f"{where}: {wrong} {folder}; train/ and {where} must hold the same classes")
