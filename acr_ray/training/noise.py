"""Noise of the training steps: each input's draws have a seed of their own, so workers can share a step at will."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.settings.seeds import derive_seed


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
