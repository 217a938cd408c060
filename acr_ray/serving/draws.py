"""The seam to the sampling engine: one forward pass for the draws of many requests.

A pass always has the same shape: ``rows // chunk`` places of ``chunk`` noise draws each. A place's noise is a block of
its own image's, and its rows see nothing of the others, so what a request counts does not depend on what shares its
passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine
from acr_ray.smoothing.plan import Phase

RUN_SEED = 0  # of all requests: their noise differs by its name, which nobody else can compute


@dataclass(frozen=True)
class Chunk:
    """One place of a pass.

    Attributes:
        image: ``(C, H, W)`` float32 in [0, 1].
        key: name of its noise, see `seeds.Secret.key`.
        phase: what the draws are for; its block is the pass's chunk.
        number: which block of the phase.
    """

    image: Tensor
    key: str
    phase: Phase
    number: int


class Drawer:
    """Draws chunks, one pass at a time. Not thread-safe.

    Args:
        engine: of the model.
        shape: (C, H, W) of the images.
        rows, chunk: see `acr_ray.settings.serve.ServeSettings`.

    Attributes:
        places: chunks of one pass.
    """

    def __init__(self, engine: SamplingEngine, shape: tuple[int, int, int], rows: int, chunk: int) -> None:
        self.engine, self.chunk, self.places = engine, chunk, rows // chunk
        self._rows = torch.zeros((rows, *shape), device=engine.device).to(memory_format=torch.channels_last)

    def draw(self, chunks: Sequence[Chunk]) -> list[NDArray[np.int64] | BrokenModelError]:
        """Return the classes of each chunk's draws, in their order, ``(chunk,)``.

        If the model answers NaN to one of them, that one gets the error, and the others their draws.

        Args:
            chunks: 1 to `places`.
        """
        try:
            return list(self._pass(chunks))
        except BrokenModelError as error:
            if len(chunks) == 1:
                return [error]
            return [self.draw([one])[0] for one in chunks]

    def _pass(self, chunks: Sequence[Chunk]) -> NDArray[np.int64]:
        noise = self.engine.noise
        with torch.inference_mode():
            for place, one in enumerate(chunks):
                image, at = noise.placed(one.image[None]), one.number
                copies = next(iter(noise.blocks(image, [one.key], RUN_SEED, one.phase, at, at + 1)))
                self._rows[place * self.chunk : (place + 1) * self.chunk] = copies
            # Places that nobody needs go along: another shape could change the last bits of a logit.
            self._rows[len(chunks) * self.chunk :] = 0
            classes = self.engine.answers_to(self._rows)
        return classes.unflatten(0, (self.places, self.chunk))[: len(chunks)].cpu().numpy()
