"""Arrays of pixels and labels, as files and users have them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from acr_ray.data.framing import Framing, image_functions
from acr_ray.data.image_set import MemorySet, View
from acr_ray.data.views import OF_SQUARES, random_resized_crop
from acr_ray.settings import UserError
from acr_ray.settings.datasets import source_of
from acr_ray.settings.image_options import ImageOptions

MOST_CHANNELS = 4
MOST_CLASSES = 100_000


def in_memory(images: np.ndarray, options: ImageOptions, *, dataset: str, **others: Any) -> MemorySet:
    """A set of images that lie in memory, with the views that the options ask for.

    Args:
        images: uint8 (N, C, H, W), or float32 with ``peak=1``.
        options: the user's.
        dataset: name in the settings.
        others: what `ImageSet` takes.
    """
    framing = Framing.of(options, None, margin=False)
    if framing.size is None and options.frames:
        raise UserError(f"data.resize and data.crop: say nothing for {dataset} without data.size")
    return MemorySet(images, _view(dataset, options), framing, dataset=dataset, **others)


def labelled(
    images: np.ndarray,
    labels: np.ndarray,
    options: ImageOptions,
    *,
    dataset: str,
    split: str,
    where: str,
    class_names: Sequence[str] | None,
) -> MemorySet:
    """A set made of a user's arrays.

    Args:
        images, labels: see `pixels_of` and `labels_of`.
        options: the user's.
        dataset, split: as `ImageSet`.
        where: they come from, for messages.
        class_names: None: labels are bare numbers.

    Raises:
        UserError: the arrays are not images and their labels.
    """
    pixels, peak = pixels_of(images, where)
    numbers = labels_of(labels, len(pixels), class_names, where)
    found = in_memory(
        pixels,
        options,
        dataset=dataset,
        split=split,
        labels=numbers,
        names=[f"{dataset}/{split}/{i:06d}" for i in range(len(pixels))],
        class_names=names_or_numbers(numbers, class_names),
        mean=None,
        std=None,
        peak=peak,
    )
    found.bare_labels = class_names is None
    if peak == 1 and np.asarray(images).dtype.itemsize > 4:
        found.remarks += (f"{where}: pixels are kept as float32, as the network takes them",)
    return found


def pixels_of(images: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """Pixels as the network takes them, and the value that stands for 1.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W), with 1 to 4 channels; uint8, or floats in [0, 1].
        where: they come from, for messages.

    Returns:
        uint8 (N, C, H, W) and 255; or, of floats that are not all multiples of 1/255, float32 and 1.

    Raises:
        UserError: another shape or type, or values outside.
    """
    placed = _channels_first(np.asarray(images), where)
    if placed.dtype == np.uint8:
        return np.ascontiguousarray(placed), 255
    if placed.dtype.kind != "f":
        raise UserError(f"{where}: images are {placed.dtype}; allowed: uint8, or floats in [0, 1]")
    check_unit_range(placed, where)
    bytes_ = np.rint(placed.astype(np.float64) * 255)
    # As load() computes it: these pixels lose nothing as bytes, which take a quarter of the memory.
    if np.array_equal((bytes_.astype(np.float32) / np.float32(255)), placed.astype(np.float32)):
        return np.ascontiguousarray(bytes_.astype(np.uint8)), 255
    return np.ascontiguousarray(placed, dtype=np.float32), 1


def check_unit_range(pixels: np.ndarray, where: str) -> None:
    """Raise UserError if floats are not all in [0, 1]; says what may be the cause."""
    if not pixels.size or (pixels.min() >= 0 and pixels.max() <= 1):  # NaN compares false
        return
    low, high = pixels.min(), pixels.max()
    if np.isnan(low):
        raise UserError(f"{where}: images hold NaN")
    hint = "divide by 255, or keep uint8" if low >= 0 else "leave normalisation out: the model's first layer does it"
    raise UserError(f"{where}: images have values from {low:g} to {high:g}; allowed: 0 to 1 ({hint})")


def labels_of(labels: np.ndarray, count: int, class_names: Sequence[str] | None, where: str) -> np.ndarray:
    """Labels as int64 (N,). Raises UserError if they are not whole numbers from 0 on, one an image."""
    found = np.asarray(labels)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or len(found) != count:
        raise UserError(f"{where}: labels {found.shape} for {count} images; allowed: ({count},), a class number each")
    if not count:
        raise UserError(f"{where}: no image")
    if found.dtype.kind not in "iu":
        raise UserError(f"{where}: labels are {found.dtype}; allowed: whole numbers, 0, 1, …")
    most = MOST_CLASSES if class_names is None else len(class_names)
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= most:
        hint = "; a label of -1 says that the class is not known" if low == -1 else ""
        raise UserError(f"{where}: labels from {low} to {high}; allowed: 0 to {most - 1}{hint}")
    return found.astype(np.int64)


def names_or_numbers(labels: np.ndarray, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Class names, or 0, 1, … to the largest label."""
    return tuple(map(str, range(int(labels.max()) + 1) if class_names is None else class_names))


def _channels_first(images: np.ndarray, where: str) -> np.ndarray:
    shape = images.shape
    if len(shape) == 3:
        return images[:, None]
    if len(shape) != 4 or 0 in shape[1:]:
        raise UserError(f"{where}: images are {shape}; allowed: (N, H, W), (N, H, W, C) or (N, C, H, W)")
    last, second = shape[3] <= MOST_CHANNELS, shape[1] <= MOST_CHANNELS
    if last == second:
        why = "either axis may be the channels" if last else f"no axis has 1 to {MOST_CHANNELS} channels"
        raise UserError(f"{where}: images are {shape}: {why}; allowed: (N, H, W, C) or (N, C, H, W)")
    return images.transpose(0, 3, 1, 2) if last else images


def _view(dataset: str, options: ImageOptions) -> View | None:
    asked = source_of(dataset).augmentation if options.augmentation == "default" else options.augmentation
    return resized_crop if asked == "resized_crop" else OF_SQUARES[asked]


def resized_crop(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """ImageNet's random crop of images (B, C, H, W), each resized to what it was, mirrored in half of the cases."""
    F, found = image_functions(), np.empty_like(images)
    for place, (image, seed) in enumerate(zip(images, seeds, strict=True)):
        *box, mirrored = random_resized_crop(image.shape[1], image.shape[2], int(seed))
        part = F.resized_crop(torch.from_numpy(image), *box, list(image.shape[1:])).numpy()
        found[place] = part[:, :, ::-1] if mirrored else part
    return found
