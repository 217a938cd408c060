"""Gaussian noise from a seed: the same block of noise on every CPU, whoever draws it.

On CPU the draws are NumPy's PCG64 and ziggurat. torch's CPU generator keeps only 32 bits of a seed, so among the
hundreds of thousands of blocks of a run some would be equal, and its normal variates depend on the processor's
vector width. On CUDA the draws are torch's Philox, which keeps 64 bits; they may differ between kinds of GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def standard_normal(
    seeds: Sequence[int], draws: int, shape: tuple[int, int, int], device: str = "cpu", out: Tensor | None = None
) -> Tensor:
    """Independent N(0, 1) noise, one stream of draws for each seed.

    Args:
        seeds: one for each image, in [0, 2**63).
        draws: noise samples for each seed, >= 1.
        shape: ``(C, H, W)`` of an image.
        device: ``"cpu"`` or a CUDA device.
        out: float32 ``(len(seeds), draws, H, W, C)`` on that device to draw into, contiguous; None: new memory.

    Returns:
        float32 ``(len(seeds) * draws, C, H, W)`` in channels-last memory order, seed by seed. A seed's rows depend
        on that seed, ``draws`` and ``shape`` alone.
    """
    channels, height, width = shape
    rows = (len(seeds), draws, height, width, channels)
    noise = torch.empty(rows, dtype=torch.float32, device=device) if out is None else out
    if noise.device.type == "cpu":
        for row, seed in zip(noise.numpy(), seeds, strict=True):
            np.random.Generator(np.random.PCG64(int(seed))).standard_normal(dtype=np.float32, out=row)
    else:
        generator = torch.Generator(device)
        for row, seed in zip(noise, seeds, strict=True):
            row.normal_(generator=generator.manual_seed(int(seed)))
    return noise.flatten(0, 1).permute(0, 3, 1, 2)
