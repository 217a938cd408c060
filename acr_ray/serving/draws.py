"""The seam to the sampling engine: one forward pass for the draws of many requests.

A pass always has the same shape: ``rows // chunk`` places of ``chunk`` noise draws each. A place's noise is a block of
its own image's, and its rows see nothing of the others, so what a request counts does not depend on what shares its
passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine
from acr_ray.smoothing.lattice_reference import stream_key
from acr_ray.smoothing.noise import LatticeNoise, Noise, Places
from acr_ray.smoothing.plan import Phase

RUN_SEED = 0  # of all requests: their noise differs by its name, which nobody else can compute


@dataclass(eq=False)
class Stream:
    """An image, and the name of its noise.

    Attributes:
        image: ``(C, H, W)`` float32 in [0, 1].
        key: see `seeds.Secret.key`.
    """

    image: Tensor
    key: str
    _placed: Tensor | None = None
    _keys: dict[str, int] = field(default_factory=dict)

    def placed(self, noise: Noise) -> Tensor:
        """Return the image as the noise takes it, ``(1, …)``; worked out once."""
        if self._placed is None:
            self._placed = noise.placed(self.image[None])
        return self._placed

    def noise_key(self, phase: str) -> int:
        """Return the key of a phase's lattice noise; worked out once."""
        if phase not in self._keys:
            self._keys[phase] = stream_key(RUN_SEED, self.key, phase)
        return self._keys[phase]


@dataclass(frozen=True)
class Chunk:
    """One place of a pass.

    Attributes:
        stream: of the image.
        phase: what the draws are for; its block is the pass's chunk.
        number: which block of the phase.
    """

    stream: Stream
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
        noise = engine.noise
        self._copies = Together(noise, rows, chunk) if isinstance(noise, LatticeNoise) else Apart(engine, shape, rows)

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
        with torch.inference_mode():
            classes = self.engine.answers_to(self._copies(chunks))
        return classes.unflatten(0, (self.places, self.chunk))[: len(chunks)].cpu().numpy()


class Together:
    """The noisy copies of a pass where all of its noise can be drawn at once.

    Args:
        noise: of the engine.
        rows, chunk: of `Drawer`.
    """

    def __init__(self, noise: LatticeNoise, rows: int, chunk: int) -> None:
        self._noise, self._rows, self._chunk = noise, rows, chunk

    def __call__(self, chunks: Sequence[Chunk]) -> Tensor:
        # Places that nobody needs repeat the last one: another shape could change the last bits of a logit.
        place = np.minimum(np.arange(self._rows // self._chunk), len(chunks) - 1)
        keys = np.array([one.stream.noise_key(one.phase.name) for one in chunks], dtype=np.uint64)[place]
        first = np.array([one.number * self._chunk for one in chunks])[place]
        images = torch.cat([one.stream.placed(self._noise) for one in chunks])
        return next(self._noise.passes(images, Places(place, keys, first, self._chunk), self._rows))


class Apart:
    """The noisy copies of a pass where each image's noise is drawn by itself.

    Args:
        engine, shape, rows: of `Drawer`.
    """

    def __init__(self, engine: SamplingEngine, shape: tuple[int, int, int], rows: int) -> None:
        self._noise = engine.noise
        self._rows = torch.zeros((rows, *shape), device=engine.device).to(memory_format=torch.channels_last)

    def __call__(self, chunks: Sequence[Chunk]) -> Tensor:
        used = 0
        for one in chunks:
            image, number = one.stream.placed(self._noise), one.number
            (copies,) = self._noise.blocks(image, [one.stream.key], RUN_SEED, one.phase, number, number + 1)
            self._rows[used : used + len(copies)] = copies
            used += len(copies)
        # Places that nobody needs go along, see `Together`.
        self._rows[used:] = 0
        return self._rows
