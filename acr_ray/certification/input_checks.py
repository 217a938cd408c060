"""A look at a classifier and its images before the first noise draw: a wrong input would be certified without a word.

Images and noise are a seeded choice of their own, so the run's own noise stays what it is. No Ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.certification.alternatives import better_labels, better_normalization, normalization_text
from acr_ray.data import ImageSet
from acr_ray.data.chance import hashed
from acr_ray.settings import UserError
from acr_ray.smoothing.engine import SamplingEngine, evaluating
from acr_ray.smoothing.pixels import TOLERANCE
from acr_ray.smoothing.plan import Phase

IMAGES, DRAWS = 64, 4  # enough to tell a wrong input from a weak classifier, in less than a second for small networks
PASS = 16  # images of one forward pass
CHOICE, NOISE = 64, 6400  # seeds of which images these are, and of their noise
DOUBT = 0.01  # a guess is as good as this classifier with at least that probability: say so
FEW = 16  # images, below which little can be said of them together


@dataclass(frozen=True)
class InputChecks:
    """What was seen.

    Attributes:
        images: how many were looked at.
        classes: of the model.
        chance: share of a guess that is right, 1 / classes.
        low, high: of all pixel values.
        clean: share of images whose class is right.
        noisy: share of noise draws whose class is right.
        sigma, draws: of the noise; draws of each image.
        normalization: where it happens, in words.
        warnings: what may be wrong, and what to try.
    """

    images: int
    classes: int
    chance: float
    low: float
    high: float
    clean: float
    noisy: float
    sigma: float
    draws: int
    normalization: str
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what the user is told: one line, and one a warning."""
        told = (
            f"checked {self.images} images: pixels {self.low:.3g} to {self.high:.3g}, {self.classes} classes; right on "
            f"{percent(self.clean)} clean, {percent(self.noisy)} under noise of sigma {self.sigma:g} (chance: "
            f"{percent(self.chance)}); {self.normalization}"
        )
        return [told, *(f"warning: {text}" for text in self.warnings)]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values, for ``summary.json``."""
        return asdict(self) | {"warnings": list(self.warnings)}


def check_inputs(model: nn.Module, images: ImageSet, sigma: float, num_classes: int, advice: str) -> InputChecks:
    """Look at some of the images and at the model's answers to them.

    Args:
        model: maps ``(B, C, H, W)`` in [0, 1] to logits ``(B, num_classes)``, on the CPU.
        images: to be certified; labels count the model's classes.
        sigma: of the run's noise, input units.
        num_classes: of the model.
        advice: what the user can do if labels or normalization are wrong.

    Raises:
        UserError: pixel values outside [0, 1].
        BrokenModelError: a logit is not finite.
    """
    chosen = np.sort(np.argsort(hashed(CHOICE, images.idx), kind="stable")[:IMAGES])
    portions = [chosen[at : at + PASS] for at in range(0, len(chosen), PASS)]
    pixels = [images.load(portion, None) for portion in portions]
    labels = images.labels[chosen]
    low, high = min(float(x.min()) for x in pixels), max(float(x.max()) for x in pixels)
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise UserError(f"{images.dataset}: images have values from {low:g} to {high:g}; must lie in [0, 1]")
    answers = np.concatenate([answers_of(model, x) for x in pixels])
    engine, phase = SamplingEngine(model, num_classes, sigma), Phase("checks", DRAWS, DRAWS)
    right = 0
    for portion, x in zip(portions, pixels, strict=True):
        names = [images.names[i] for i in portion]
        counts = engine.count_label(x, torch.from_numpy(images.labels[portion]), names, NOISE, phase)
        right += int(counts.sum())
    found = InputChecks(
        images=len(chosen),
        classes=num_classes,
        chance=1 / num_classes,
        low=low,
        high=high,
        clean=float((answers == labels).mean()),
        noisy=right / (DRAWS * len(chosen)),
        sigma=sigma,
        draws=DRAWS,
        normalization=normalization_text(model),
        warnings=(),
    )
    warnings = (*_of_images(found, images), *_of_answers(found, model, pixels, answers, labels, advice))
    return InputChecks(**{**asdict(found), "warnings": warnings})


def answers_of(model: nn.Module, pixels: Tensor) -> NDArray[np.int64]:
    """Classes ``(B,)`` of images ``(B, C, H, W)`` without noise."""
    with torch.inference_mode(), evaluating(model):
        return model(pixels).argmax(1).numpy()


def percent(share: float) -> str:
    """Write a share in percent, as short as it can be read: ``9 %``, ``0.1 %``."""
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"


def like_chance(right: float, images: int, chance: float) -> bool:
    """Whether guessing is right as often with more than `DOUBT`; False where that many images cannot tell.

    Args:
        right: share of images, in [0, 1].
    """
    if chance**images > DOUBT:  # not even a perfect classifier would stand out
        return False
    least = math.ceil(right * images - 1e-9)
    as_good = sum(math.comb(images, k) * chance**k * (1 - chance) ** (images - k) for k in range(least, images + 1))
    return as_good > DOUBT


def _of_images(found: InputChecks, images: ImageSet) -> Iterator[str]:
    if found.high - found.low < 1e-6:
        yield f"every pixel of the {found.images} images is {found.low:.3g}: is this the right file or folder?"
    elif found.high <= 2 / 255:
        yield (
            f"pixel values reach only {found.high:.2g}: were images in [0, 1] divided by 255 once more? sigma "
            f"{found.sigma:g} would drown them"
        )
    given = np.unique(images.labels)
    if len(images) >= FEW and len(given) == 1:
        yield f"all {len(images)} images have the label {images.class_names[int(given[0])]}: are these all classes?"
    elif len(images) >= 4 * found.classes and int(given[-1]) + 1 <= found.classes / 2:
        yield (
            f"labels go from {given[0]} to {given[-1]}, the model has {found.classes} classes: is it the model of "
            "these data?"
        )


def _of_answers(
    found: InputChecks,
    model: nn.Module,
    pixels: list[Tensor],
    answers: NDArray[np.int64],
    labels: NDArray[np.int64],
    advice: str,
) -> Iterator[str]:
    at_chance = like_chance(found.clean, found.images, found.chance)
    enough = found.images >= FEW
    hints = []
    if enough and found.clean < 0.5:
        hints = [
            hint
            for hint in (
                better_normalization(model, pixels, labels, found.clean, answers_of),
                better_labels(answers, labels, found.classes, found.clean),
            )
            if hint
        ]
    if at_chance or hints:
        one = enough and len(np.unique(answers)) == 1 and len(np.unique(labels)) > 1
        same = f" (it answers class {answers[0]} to all)" if one else ""
        yield (
            f"this classifier is right on {percent(found.clean)} of {found.images} clean images (chance: "
            f"{percent(found.chance)}){same}: is it the right normalisation or label order? "
            f"{'; '.join([*hints, advice])}"
        )
    elif like_chance(found.noisy, found.images, found.chance):
        yield (
            f"this classifier is right on {percent(found.clean)} of {found.images} clean images, but on "
            f"{percent(found.noisy)} under noise of sigma {found.sigma:g} (chance: {percent(found.chance)}): was it "
            "trained on such noise? try a smaller sigma, train it with noise (jobs.train --init), or put a denoiser "
            "before it (docs/models.md)"
        )
