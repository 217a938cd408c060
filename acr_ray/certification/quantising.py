"""An int8 network for a certification: which noisy images it is calibrated on, and how it compares. No Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.data import ImageSet
from acr_ray.data.chance import hashed
from acr_ray.settings import CertifySettings
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.int8_calibration import calibrate
from acr_ray.smoothing.int8_parameters import Int8Parameters
from acr_ray.smoothing.run_noise import levels_of

IMAGES = 128  # one noise draw each: more change no scale that matters
COMPARED, DRAWS = 64, 4  # images of the run, and draws of each
PASS = 16  # images of one forward pass
# Seeds that no run's own noise has. The same in every run, so that runs of other seeds have the same int8 network.
CHOICE, NOISE, COMPARISON = 801, 802, 803


@dataclass(frozen=True)
class Agreement:
    """How an int8 network compares with the float32 one, on the same noisy images.

    Attributes:
        images, draws: images of the run, and noise draws of each.
        accuracy, accuracy_float32: shares of noise draws whose class is right.
        agreement: share of noise draws that both give the same class.
    """

    images: int
    draws: int
    accuracy: float
    accuracy_float32: float
    agreement: float

    def __str__(self) -> str:
        own, other = 100 * self.accuracy, 100 * self.accuracy_float32
        return (
            f"int8: right on {own:.1f} % of {self.images * self.draws} noise draws of {self.images} images, float32 on "
            f"{other:.1f} %; the same class on {100 * self.agreement:.1f} %"
        )


def find_parameters(model: nn.Module, model_sha256: str, images: ImageSet, settings: CertifySettings) -> Int8Parameters:
    """Calibrate a network on noisy images, as the run's noise is.

    Args:
        model: float32, in evaluation mode.
        model_sha256: of its weights; kept with what is found.
        images: a seeded choice of them is used, all if there are fewer.

    Raises:
        UserError: int8 cannot compute this network.
    """
    engine = SamplingEngine(model, 2, settings.sigma, levels=levels_of(settings))
    batches = [noisy.clone() for _, noisy in _noisy(engine, images, IMAGES, CHOICE, NOISE, 1)]
    about: dict[str, object] = {"model_sha256": model_sha256, "dataset": images.dataset, "split": settings.calibration}
    about |= {"images": min(IMAGES, len(images)), "sigma": settings.sigma, "noise": settings.noise}
    return calibrate(model, batches, about)


def agreement(
    model: nn.Module, parameters: Int8Parameters, images: ImageSet, settings: CertifySettings, num_classes: int
) -> Agreement:
    """Compare an int8 network with the float32 one on noise of their own on some of a run's images."""
    engines = [
        SamplingEngine(ready, num_classes, settings.sigma, levels=levels_of(settings))
        for ready in (prepare(model, dtype="int8", int8=parameters), prepare(model))
    ]
    right, same, total = np.zeros(2, dtype=np.int64), 0, 0
    for portion, noisy in _noisy(engines[0], images, COMPARED, CHOICE, COMPARISON, DRAWS):
        labels = np.repeat(images.labels[portion], DRAWS)
        int8, float32 = (engine.answers_to(noisy).numpy() for engine in engines)
        right += ((int8 == labels).sum(), (float32 == labels).sum())
        same, total = same + int((int8 == float32).sum()), total + len(labels)
    own, other = (right / total).tolist()
    return Agreement(total // DRAWS, DRAWS, own, other, same / total)


def _noisy(
    engine: SamplingEngine, images: ImageSet, most: int, choice: int, seed: int, draws: int
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Some of the images and noisy copies of them, in memory that is used again."""
    chosen = np.sort(np.argsort(hashed(choice, images.idx), kind="stable")[:most])
    for at in range(0, len(chosen), PASS):
        portion = chosen[at : at + PASS]
        seeds = hashed(seed, images.idx[portion]).tolist()
        yield portion, engine.noise.seeded(engine.noise.placed(images.load(portion, None)), seeds, draws)
