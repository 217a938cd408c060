"""The actor that draws: a model, noise from seeds, and class counts back."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from acr_ray.models import ModelCard, build_model, load_state
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase


@dataclass(frozen=True)
class Draw:
    """A span as an actor needs it: the image itself, its name, and the blocks."""

    name: str
    pixels: NDArray[np.float32]  # (C, H, W) in [0, 1]
    phase: Phase
    first: int
    stop: int


class Sampler:
    """Holds the model and draws. Plain Python: the coordinator makes it a Ray actor.

    Args:
        card: the model's card.
        state: its weights, as safetensors bytes.
        sigma: noise.
        seed: of the run.
        device: ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, card: ModelCard, state: bytes, sigma: float, seed: int, device: str) -> None:
        # One thread: with another number the last bits of a logit could differ between actors.
        torch.set_num_threads(1)
        model = build_model(card.architecture, card.num_classes, card.shape, card.mean, card.std, seed=0)
        load_state(model, state, "the model of this run")
        model.requires_grad_(False).eval().to(device=device, memory_format=torch.channels_last)
        self._engine = SamplingEngine(model, card.num_classes, sigma, device)
        self._seed = seed

    def pid(self) -> int:
        return os.getpid()

    def draw(self, draws: list[Draw]) -> list[tuple[NDArray[np.int64], float]]:
        """Class counts ``(num_classes,)`` and seconds for each span."""
        found = []
        for draw in draws:
            started = time.perf_counter()
            image = torch.tensor(draw.pixels)
            counts = self._engine.count(image, draw.name, self._seed, draw.phase, draw.first, draw.stop)
            found.append((counts, time.perf_counter() - started))
        return found
