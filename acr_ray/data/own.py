"""A user's own data, named ``module:function``: arrays of images and labels, or a Dataset like torchvision's."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from acr_ray.data.arrays import check_unit_range, labelled, labels_of, names_or_numbers
from acr_ray.data.decoded_set import DecodedSet, channels_first
from acr_ray.data.decoding import as_rgb
from acr_ray.data.framing import Framing
from acr_ray.data.image_set import ImageSet
from acr_ray.settings import UserError
from acr_ray.settings.image_options import ImageOptions
from acr_ray.settings.own_code import load_named

GREY = ("1", "L")


def open_own(name: str, root: str | None, split: str, options: ImageOptions) -> ImageSet:
    """What a user's function gives.

    Args:
        name: ``module:function``. It is called with ``split=`` (train, test) and ``root=`` if it takes them, and gives
            (images, labels) or (images, labels, class names), see `acr_ray.data.arrays.pixels_of`; or an object with
            ``__len__`` and ``__getitem__``, whose items are (image, class number). Images are PIL's, arrays (H, W, C)
            or tensors (C, H, W), uint8 or floats in [0, 1]; ``classes``, if it has them, are the classes' names.
        root: handed on.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: the function cannot be loaded, fails, or gives something else.
    """
    where = f"--dataset {name}"
    return called(load_named(name, where), name, root, split, options)


def called(function: Callable[..., Any], name: str, root: str | None, split: str, options: ImageOptions) -> ImageSet:
    """What a user's function gives; see `open_own`.

    Args:
        function: of the user's.
        name: ``module:function``, by which its images are known.
    """
    where = f"--dataset {name}"
    takes = _parameters(function)
    given = {key: value for key, value in {"split": split, "root": root}.items() if takes is None or key in takes}
    try:
        found = function(**given)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may fail in any way
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
    images = images_of(found, name, split, options)
    if "split" not in given:
        images.remarks += (f"{where}: takes no split=; train and test are both all of it",)
    return images


def _parameters(function: Callable[..., Any]) -> set[str] | None:
    """Names of arguments that a function takes; None: any."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return set()
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else set(parameters)


def images_of(found: Any, name: str, split: str, options: ImageOptions) -> ImageSet:
    """The images that a user's object holds.

    Args:
        found: (images, labels), (images, labels, class names) or a Dataset; see `open_own`.
        name: ``module:function``, by which its images are known; a part of their names.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: it is something else.
    """
    where = f"--dataset {name}"
    if isinstance(found, tuple) and len(found) in (2, 3) and hasattr(found[0], "shape"):
        pixels, labels = (
            np.asarray(part.detach().cpu() if isinstance(part, torch.Tensor) else part) for part in found[:2]
        )
        names = _class_names(found[2], where) if len(found) == 3 else None
        return labelled(pixels, labels, options, dataset=name, split=split, where=where, class_names=names)
    if hasattr(found, "__len__") and hasattr(found, "__getitem__") and not isinstance(found, (str, bytes, dict)):
        return OwnDataset(found, name, split, options)
    raise UserError(
        f"{where}: gives a {type(found).__name__}; needed: (images, labels) as arrays, or an object with __len__ and "
        "__getitem__ that gives (image, class number)"
    )


def _class_names(names: Sequence[Any], where: str) -> tuple[str, ...]:
    found = tuple(map(str, names))
    if len(set(found)) != len(found):
        raise UserError(f"{where}: two classes are called {next(n for n in found if found.count(n) > 1)!r}")
    return found


class OwnDataset(DecodedSet):
    """Images of a user's Dataset, read when they are asked for; labels are read once, at the start.

    Its first image says what all are: grey or RGB, bytes or floats, and, unless a size is asked for, how large.
    """

    # Until the first image is read.
    _first: tuple[bool, Any] | None = None  # whether images are tensors, and their type of pixels
    _grey = False
    _all_labels: np.ndarray | None = None

    def __init__(self, items: Any, name: str, split: str, options: ImageOptions) -> None:
        self._items, self._name = items, name
        where = f"--dataset {name}"
        if not len(items):
            raise UserError(f"{where}: no image")
        first = self._open(0)
        self._grey = isinstance(first, Image.Image) and first.mode == "L"
        self._first = (type(first) is torch.Tensor, channels_first(first).dtype)
        self.dtype = channels_first(first).dtype
        if not np.array_equal(channels_first(first), channels_first(self._open(0))):
            raise UserError(
                f"{where}: image 0 differs each time it is read; leave random transforms to data.augmentation"
            )
        classes = getattr(items, "classes", None)
        names = None if classes is None else _class_names(classes, where)
        labels = labels_of(np.array(_labels(items, where)), len(items), names, where)
        framing = Framing.of(options, None, margin=True)
        channels, *sides = channels_first(first).shape
        super().__init__(
            framing=framing,
            augmentation="none" if options.augmentation == "default" else options.augmentation,
            dataset=name,
            split=split,
            labels=labels,
            names=[f"{name}/{split}/{i:06d}" for i in range(len(labels))],
            class_names=names_or_numbers(labels, names),
            shape=(channels, *(sides if framing.size is None else (framing.size, framing.size))),
            mean=None,
            std=None,
            peak=255 if self.dtype == np.uint8 else 1,
        )
        self.bare_labels = names is None
        self._all_labels = labels

    def _open(self, row: int) -> Any:
        image, label = _item(self._items, row, self._where(row))
        if self._all_labels is not None and label != self._all_labels[row]:
            raise UserError(f"{self._where(row)}: has label {label}, and had {self._all_labels[row]} at the start")
        is_picture = isinstance(image, Image.Image)
        image = self._picture(image, row) if is_picture else _tensor(image, self._where(row))
        if self._first is not None and self._first != (type(image) is torch.Tensor, channels_first(image).dtype):
            raise UserError(
                f"{self._where(row)}: is of another kind than image 0 ({type(image).__name__}); give all alike"
            )
        return image

    def _picture(self, image: Image.Image, row: int) -> Image.Image:
        if image.mode in GREY and (self._first is None or self._grey):
            return image.convert("L")
        if self._first is not None and self._grey:
            raise UserError(f'{self._where(row)}: is {image.mode}, image 0 is grey; give all as image.convert("RGB")')
        return as_rgb(image, self._where(row))

    def _where(self, row: int) -> str:
        return f"--dataset {self._name}: image {row}"

    def _content(self) -> bytes:
        """All pixels are read: there is no other way to tell one user's Dataset from another."""
        found = hashlib.sha256(self._framing.identity + str(np.dtype(self.dtype)).encode())
        for row in self.idx:
            found.update(channels_first(self._open(int(row))).tobytes())
        return found.digest()


def _item(items: Any, row: int, where: str) -> tuple[Any, int]:
    try:
        image, label = items[row]
    except (Exception, SystemExit) as error:  # a user's code may fail in any way
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
    number = label.item() if hasattr(label, "item") and getattr(label, "ndim", 1) == 0 else label
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise UserError(f"{where}: its label is a {type(label).__name__}; needed: a class number")
    return image, int(number)


def _tensor(image: Any, where: str) -> torch.Tensor:
    """An array (H, W) or (H, W, C), or a tensor (C, H, W), as a tensor (C, H, W) of bytes or floats in [0, 1]."""
    if isinstance(image, torch.Tensor):
        pixels = image.detach().cpu()
        pixels = pixels[None] if pixels.ndim == 2 else pixels
    else:
        array = np.asarray(image)
        if array.ndim not in (2, 3):
            raise UserError(f"{where}: is a {type(image).__name__} {array.shape}; needed: PIL, (H, W, C), or a tensor")
        pixels = torch.from_numpy(np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1)))
    if pixels.ndim != 3 or not 1 <= pixels.shape[0] <= 4:
        raise UserError(f"{where}: is {tuple(pixels.shape)}; needed: (C, H, W) with 1 to 4 channels")
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.dtype.is_floating_point:
        raise UserError(f"{where}: is {pixels.dtype}; allowed: uint8, or floats in [0, 1]")
    check_unit_range(pixels.numpy(), where)
    return pixels.float()


def _labels(items: Any, where: str) -> list[int]:
    """All labels: those that torchvision's sets keep in ``targets``, or each item's."""
    kept = getattr(items, "targets", None)
    if kept is not None and getattr(items, "target_transform", None) is None and len(kept) == len(items):
        return [int(label) for label in kept]
    return [_item(items, row, f"{where}: image {row}")[1] for row in range(len(items))]
