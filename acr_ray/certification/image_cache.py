"""Decoded images, kept for as long as they are likely to be asked for again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acr_ray.data import ImageSet

MOST = 64  # images kept decoded


class ImageCache:
    """Keeps the images used last as pixels.

    Args:
        images: to load from, by position.
        most: how many stay when they are not asked for.
    """

    def __init__(self, images: ImageSet, most: int = MOST) -> None:
        self._images, self._most = images, most
        self._pixels: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, positions: Sequence[int]) -> NDArray[np.float32]:
        """Return ``(len(positions), C, H, W)`` in [0, 1]; images that are not kept are loaded together."""
        absent = [i for i in positions if i not in self._pixels]
        if absent:
            loaded = self._images.load(absent, None).numpy()
            self._pixels.update(zip(absent, loaded, strict=True))
        for position in positions:
            self._pixels.move_to_end(position)
        stacked = np.stack([self._pixels[position] for position in positions])
        while len(self._pixels) > self._most:
            self._pixels.popitem(last=False)
        return stacked
