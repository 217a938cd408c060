"""Noise of the training steps: each input's draws have a seed of their own, so workers can share a step at will."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.data import ImageSet
from acr_ray.settings import Recipe, UserError
from acr_ray.settings.seeds import derive_seed
from acr_ray.smoothing.lattice_law import LatticeLaw, levels_for
from acr_ray.smoothing.noise import LatticeSteps


def lattice_law(recipe: Recipe, images: ImageSet) -> LatticeLaw | None:
    """The law of a training's lattice noise; None for float noise. Raises UserError if it does not fit 16 bits."""
    if recipe.training.noise == "float":
        return None
    sigma = recipe.training.sigma
    try:
        return LatticeLaw(sigma, levels_for(sigma, images.grid))
    except ValueError as error:
        raise UserError(f"training.noise = lattice: {error}") from None


class LatticeTrainingNoise:
    """As `training_noise` times sigma, rounded to the images' grid: the same on every device.

    Args:
        law: of the noise.
        device: ``"cpu"`` or a CUDA device.
    """

    def __init__(self, law: LatticeLaw, device: str) -> None:
        self._steps, self._step = LatticeSteps(law, device), 1.0 / law.levels

    def __call__(self, seed: int, epoch: int, positions: NDArray, m: int, shape: tuple[int, int, int]) -> Tensor:
        """float32 ``(len(positions) * m, C, H, W)``, see `training_noise`."""
        channels, height, width = shape
        keys = [derive_seed(seed, "train", epoch, int(position)) for position in positions]
        steps = self._steps(keys, m, channels * height * width).float().mul_(self._step)
        return steps.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def training_noise(
    seed: int, epoch: int, positions: NDArray, m: int, shape: tuple[int, int, int], device: str
) -> Tensor:
    """Standard normal noise for the inputs at these positions of the epoch's global sequence.

    torch's own generators: they are quick to seed, and that two inputs of a long run may share 32 bits of seed on
    a CPU does training no harm. Certification draws its noise elsewhere.

    Returns:
        float32 ``(len(positions) * m, C, H, W)`` in channels-last memory order, m rows for each input.
    """
    channels, height, width = shape
    noise = torch.empty((len(positions), m, height, width, channels), device=device)
    generator = torch.Generator(device)
    for row, position in zip(noise, positions, strict=True):
        row.normal_(generator=generator.manual_seed(derive_seed(seed, "train", epoch, int(position))))
    return noise.flatten(0, 1).permute(0, 3, 1, 2)
