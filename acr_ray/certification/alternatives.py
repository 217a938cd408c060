"""What would make a classifier right that seems wrong: another normalization, or another order of its classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from acr_ray.models.building import Normalize
from acr_ray.models.importing import FIELD, Constants

MUCH = 0.25  # share of images that must come right, to be worth a word


def normalization_text(model: nn.Module) -> str:
    """Say where a model normalises its inputs; `acr_ray.models.build_model` makes it the first layer."""
    layer = _layer(model)
    if layer is None or not (layer.mean.any() or (layer.std != 1).any()):
        return "no normalization before the network: it takes inputs in [0, 1]"
    return f"the model's first layer normalises by {_shown(layer)}, after the noise"


def better_normalization(
    model: nn.Module,
    pixels: Sequence[Tensor],
    labels: NDArray[np.int64],
    right: float,
    answers_of: Callable[[nn.Module, Tensor], NDArray[np.int64]],
) -> str | None:
    """Try the usual normalizations; say which one makes the classifier right, if one does.

    Args:
        model: with ``normalize`` before ``network``; of any other none is tried.
        pixels: images ``(B, C, H, W)`` in [0, 1], in portions.
        labels: of all of them, ``(N,)``.
        right: share of them that the model has right as it is.
        answers_of: gives a model's classes.
    """
    layer = _layer(model)
    if layer is None:
        return None
    network, channels = model.get_submodule("network"), len(layer.mean)
    best, name = right + MUCH, None
    for candidate, constants in _usual(channels).items():
        tried = nn.Sequential(Normalize(*constants), network).eval()
        share = float((np.concatenate([answers_of(tried, x) for x in pixels]) == labels).mean())
        if share > best or (name is None and share == best):  # of equals the first
            best, name = share, candidate
    return None if name is None else f"with normalization {name} it is right on {100 * best:.0f} %"


def better_labels(answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int, right: float) -> str | None:
    """Say which other order of the classes makes the answers right, if one does.

    Args:
        answers, labels: class numbers ``(N,)``.
        classes: how many there are.
        right: share of answers that are right as they are.
    """
    for shift, words in ((1, "one more than"), (-1, "one less than")):
        share = float((answers == labels + shift).mean())
        if share >= right + MUCH:
            return f"{100 * share:.0f} % of its answers are {words} the label"
    if 4 * classes > len(answers):  # some order always fits a few images
        return None
    pairs = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(pairs, (labels, answers), 1)
    rows, columns = linear_sum_assignment(pairs, maximize=True)
    share = float(pairs[rows, columns].sum()) / len(answers)
    if share < max(0.6, right + MUCH):
        return None
    return f"with its classes in another order it is right on {100 * share:.0f} %"


def _usual(channels: int) -> dict[str, Constants]:
    """By what ``--normalization`` takes."""
    found: dict[str, Constants] = {"none": ((0.0,) * channels, (1.0,) * channels)}
    for mean, std in ((0.5, 0.5), (0.0, 1 / 255)):  # networks for -1 to 1, and for 0 to 255
        texts = [",".join([f"{value:.6g}"] * channels) for value in (mean, std)]
        found["/".join(texts)] = ((mean,) * channels, (std,) * channels)
    return found | {name: constants for name, constants in FIELD.items() if len(constants[0]) == channels}


def _layer(model: nn.Module) -> Normalize | None:
    layer = getattr(model, "normalize", None)
    return layer if isinstance(layer, Normalize) and isinstance(getattr(model, "network", None), nn.Module) else None


def _shown(layer: Normalize) -> str:
    return "/".join(",".join(f"{float(value):.4g}" for value in part.flatten()) for part in (layer.mean, layer.std))
