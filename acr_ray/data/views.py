"""Training views: random numbers of each image come from its own seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from acr_ray.data.chance import uniforms

PADDING = 4
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10


def crop_and_flip(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """CIFAR's view: crop of the original size out of the image in 4 pixels of black, mirrored in half of the cases.

    Args:
        images: uint8 (B, C, H, W).
        seeds: int64 (B,).
    """
    u = uniforms(seeds, 3)
    top, left = (u[:, :2] * (2 * PADDING + 1)).astype(np.int64).T
    count, channels, height, width = images.shape
    padded = np.zeros((count, channels, height + 2 * PADDING, width + 2 * PADDING), dtype=images.dtype)
    padded[:, :, PADDING:-PADDING, PADDING:-PADDING] = images
    # All crops of all images as one array of views; picking one an image copies whole rows, not single pixels.
    crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    found = crops[np.arange(count), :, top, left]
    mirrored = u[:, 2] < 0.5
    found[mirrored] = found[mirrored, :, :, ::-1]
    return found


def random_resized_crop(height: int, width: int, seed: int) -> tuple[int, int, int, int, bool]:
    """(top, left, height, width) of ImageNet's random crop, and whether to mirror it.

    Szegedy et al.'s crop as in torchvision's RandomResizedCrop: a share of the area in [0.08, 1] and an aspect ratio
    in [3/4, 4/3] (uniform in its logarithm), ten tries, then the largest central crop of an allowed ratio.
    """
    u = uniforms([seed], 4 * TRIES + 1)[0]
    mirrored = bool(u[-1] < 0.5)
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    for area, ratio, down, across in u[:-1].reshape(TRIES, 4):
        target = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
        aspect = math.exp(low + ratio * (high - low))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(across * (width - w + 1)), h, w, mirrored
    w = min(width, round(height * ASPECT[1]))
    h = min(height, round(width / ASPECT[0]))
    return (height - h) // 2, (width - w) // 2, h, w, mirrored


def flip(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The images (B, C, H, W), each mirrored in half of the cases, by its own seed."""
    found = images.copy()
    mirrored = uniforms(seeds, 1)[:, 0] < 0.5
    found[mirrored] = found[mirrored, :, :, ::-1]
    return found


#: What a training view does to evaluation views; ``resized_crop`` begins with the whole image instead.
OF_SQUARES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray] | None] = {
    "none": None,
    "flip": flip,
    "crop_flip": crop_and_flip,
}
