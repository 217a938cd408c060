"""Images kept for as long as they are likely to be asked for again: decoded, and with the samplers."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from acr_ray.data import ImageSet

MOST = 64  # images kept decoded, at least
DECODED = 2**25  # numbers kept decoded: 128 MB
WITH_SAMPLER = 2**25  # numbers that a sampler keeps: 64 MB as steps of a grid, 128 MB in float32

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def most_kept(numbers: int, coordinates: int) -> int:
    """Return how many images are kept where so many numbers may be; an image has ``coordinates``."""
    return max(MOST, numbers // max(1, coordinates))


class Kept(Generic[K, V]):
    """What was used last, by name or position.

    Coordinator and sampler keep one each of the same images, and trim it after each task: both know without a word
    what the sampler still has.

    Args:
        most: how many stay after `trim`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def has(self, names: Iterable[K]) -> bool:
        """Return whether all are kept."""
        return all(name in self._values for name in names)

    def use(self, names: Sequence[K], values: Iterable[V] | None = None) -> list[V]:
        """Return the values of some names, which are then those used last.

        Args:
            values: new ones; None: all are kept.

        Raises:
            KeyError: one is not kept, and no values are given.
        """
        if values is not None:
            self._values.update(zip(names, values, strict=True))
        for name in names:
            self._values.move_to_end(name)
        return [self._values[name] for name in names]

    def trim(self) -> None:
        """Forget those that were not used for longest."""
        while len(self._values) > self._most:
            self._values.popitem(last=False)


class ImageCache:
    """Keeps the images used last as pixels.

    Args:
        images: to load from, by position.
        most: how many stay when they are not asked for; None: as many as `DECODED` allows.
    """

    def __init__(self, images: ImageSet, most: int | None = None) -> None:
        self._images = images
        self._kept: Kept[int, NDArray[np.float32]] = Kept(
            most_kept(DECODED, math.prod(images.shape)) if most is None else most
        )

    def __len__(self) -> int:
        return len(self._kept)

    def pixels(self, positions: Sequence[int]) -> NDArray[np.float32]:
        """Return ``(len(positions), C, H, W)`` in [0, 1]; images that are not kept are loaded together."""
        absent = [i for i in positions if not self._kept.has([i])]
        if absent:
            self._kept.use(absent, self._images.load(absent, None).numpy())
        stacked = np.stack(self._kept.use(positions))
        self._kept.trim()
        return stacked
