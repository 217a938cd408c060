"""One check wherever pixels come in from outside: a certificate is about an image in [0, 1], and about nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: How far a value may lie outside [0, 1]: what arithmetic in float16 does to a 1.
TOLERANCE = 1e-3


def checked_image(image: Tensor | NDArray, shape: Sequence[int] | None = None, name: str = "image") -> Tensor:
    """An image as the networks take it: float32 ``(C, H, W)`` in [0, 1].

    Args:
        image: one image ``(C, H, W)``, a tensor or an array, of floating-point numbers in [0, 1].
        shape: the only (C, H, W) that the model takes, where that is known.
        name: how messages call it.

    Raises:
        ValueError: something else, and what to do: several images, another order of axes, integers, values outside
            [0, 1] (0 to 255, -1 to 1, already normalised), NaN.
    """
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "fiub":
            raise ValueError(f"{name}: an array of {image.dtype}; give floating-point numbers in [0, 1]")
        image = torch.as_tensor(np.ascontiguousarray(image))
    if not isinstance(image, Tensor):
        raise ValueError(f"{name}: a {type(image).__name__}; give a tensor or an array (C, H, W)")
    given = tuple(image.shape)
    if image.ndim != 3 or 0 in given:
        several = "; for a batch give names, a different one for each image" if image.ndim == 4 else ""
        raise ValueError(f"{name}: has shape {given}; give one image (C, H, W){several}")
    if shape is not None and given != tuple(shape):
        raise ValueError(f"{name}: has shape {given}, the model takes (C, H, W) = {tuple(shape)}{_axes(given, shape)}")
    if not image.is_floating_point():
        raise ValueError(
            f"{name}: has values of {str(image.dtype).removeprefix('torch.')}; scale them to [0, 1]{_BYTES}"
        )
    # With NumPy: each of torch's operations would give the interpreter away, which the service's threads share.
    array = image.detach().to(torch.float32).cpu().numpy()
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: holds NaN or infinite values")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(f"{name}: has values from {low:g} to {high:g}, must lie in [0, 1]{_remedy(low, high)}")
    return torch.from_numpy(np.clip(array, 0.0, 1.0)).to(image.device)


def checked_images(images: Tensor | NDArray, names: Sequence[str], shape: Sequence[int] | None = None) -> list[Tensor]:
    """The images of a batch, each as `checked_image` gives it.

    Args:
        images: ``(N, C, H, W)``.
        names: N different names.
        shape: as `checked_image`.

    Raises:
        ValueError: it is no batch, there is not one name an image, two have the same, or an image is refused; names
            the image.
    """
    if not isinstance(images, (np.ndarray, Tensor)) or images.ndim != 4:
        given = tuple(images.shape) if hasattr(images, "shape") else type(images).__name__
        raise ValueError(f"images: {given}; with names give a batch (N, C, H, W), a tensor or an array")
    if isinstance(names, str) or len(names) != len(images):
        count = "one text" if isinstance(names, str) else f"{len(names)} names"
        raise ValueError(f"names: {count} for {len(images)} images; give one for each")
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise ValueError(f"names: {twice!r} twice; images of one name share their noise, give each its own")
    return [checked_image(image, shape, f"image {name}") for image, name in zip(images, names, strict=True)]


_BYTES = "; of 8-bit images: image / 255"


def _axes(given: tuple[int, ...], shape: Sequence[int]) -> str:
    return "; move its last axis to the front" if (given[2], *given[:2]) == tuple(shape) else ""


def _remedy(low: float, high: float) -> str:
    if low >= -TOLERANCE:
        return _BYTES
    if low >= -1 - TOLERANCE and high <= 1 + TOLERANCE:
        return "; scale -1 to 1 by (image + 1) / 2, and leave out any normalisation: it is the model's first layer"
    return "; leave the normalisation out: it is the model's first layer"


def checked_sigma(sigma: float | None) -> float:
    """The noise level as a number. Raises ValueError where it is none above 0."""
    if sigma is None:
        raise ValueError("sigma: None; the checkpoint does not say the noise it was trained with, give a number > 0")
    if isinstance(sigma, bool) or not isinstance(sigma, Real) or not 0 < sigma < math.inf:
        raise ValueError(f"sigma: {sigma!r}; must be a number > 0, in units of an image in [0, 1]")
    return float(sigma)


def checked_whole(option: str, value: int, least: int = 1) -> int:
    """A whole number. Raises ValueError where it is none from ``least`` up."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{option}: {value!r}; must be a whole number >= {least}")
    return int(value)


def checked_alpha(alpha: float) -> float:
    """An error probability. Raises ValueError where it does not lie in (0, 1)."""
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 < alpha < 1:
        raise ValueError(f"alpha: {alpha!r}; must be a number in (0, 1)")
    return float(alpha)
