"""Checkpoints without training."""

from __future__ import annotations

from pathlib import Path

import torch

from acr_ray.data import open_images
from acr_ray.models import ModelCard, build_model, save_checkpoint
from acr_ray.storage import Folder


def write_digits_checkpoint(folder: Path, sharper: float = 1.0) -> Path:
    """An untrained network for the digits at σ = 0.25; ``sharper`` multiplies its last weights. Gives `folder` back."""
    images = open_images("digits", None, "test")
    model = build_model("digits_resnet", 10, images.shape, images.mean, images.std, seed=1)
    with torch.no_grad():
        model[-1].fc.weight.mul_(sharper)
    card = ModelCard.of("digits_resnet", images, sigma=0.25)
    save_checkpoint(Folder(folder), model, card)
    return folder
