"""Images that are decoded when they are asked for: what folders, packs, Parquet files and a user's Dataset share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from PIL import Image

from acr_ray.data.framing import Framing, image_functions
from acr_ray.data.image_set import ImageSet
from acr_ray.data.views import OF_SQUARES, random_resized_crop
from acr_ray.settings import UserError


class DecodedSet(ImageSet):
    """Images that stay where they are until they are loaded.

    Args:
        framing: how an image becomes a square.
        augmentation: of the training view: ``none``, ``flip``, ``crop_flip`` or ``resized_crop``.
        others: what `ImageSet` takes.

    Raises:
        UserError: ``resized_crop`` of images that have no size to be resized to.
    """

    in_memory = False
    of_files = False  # whether `encoded` gives each image's file
    dtype: Any = np.uint8

    def __init__(self, *, framing: Framing, augmentation: str, **others: Any) -> None:
        image_functions()  # here, for the processes that will read images as well
        if augmentation == "resized_crop" and framing.size is None:
            raise UserError("data.augmentation = resized_crop: needs data.size, the side of the square")
        super().__init__(**others)
        self._framing, self._augmentation = framing, augmentation

    @abstractmethod
    def _open(self, row: int) -> Any:
        """The whole image of a row of the full split: PIL's, or a tensor (C, H, W)."""

    def encoded(self, row: int) -> bytes:
        """The image file of a row of the full split, where there is one; see `of_files`."""
        raise NotImplementedError

    @property
    def framing(self) -> Framing:
        """How an image becomes a square."""
        return self._framing

    @property
    def augmentation(self) -> str:
        """Of the training view."""
        return self._augmentation

    @abstractmethod
    def _where(self, row: int) -> str:
        """Where it lies, for messages."""

    def _evaluation_view(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape), dtype=self.dtype)
        for place, row in enumerate(rows):
            try:
                image = self._framing(self._open(int(row)))
            except ValueError as error:
                raise UserError(f"{self._where(int(row))}: {error}") from None
            found[place] = self._fitting(channels_first(image), int(row))
        return found

    def _training_view(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        if self._augmentation != "resized_crop":
            augment, images = OF_SQUARES[self._augmentation], self._evaluation_view(rows)
            return images if augment is None else augment(images, seeds)
        F, found = image_functions(), np.empty((len(rows), *self.shape), dtype=self.dtype)
        for place, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            image = self._open(int(row))
            height, width = F.get_size(image)
            *box, mirrored = random_resized_crop(height, width, int(seed))
            image = F.resized_crop(image, *box, list(self.shape[1:]))
            found[place] = self._fitting(channels_first(F.horizontal_flip(image) if mirrored else image), int(row))
        return found

    def _fitting(self, pixels: np.ndarray, row: int) -> np.ndarray:
        if pixels.shape != self.shape:
            raise UserError(
                f"{self._where(row)}: is an image {pixels.shape}, others are {self.shape}; give --data.size P, to "
                "which all are resized"
            )
        return pixels


def channels_first(image: Any) -> np.ndarray:
    """The pixels (C, H, W) of PIL's image, or of a tensor that has them so."""
    if not isinstance(image, Image.Image):
        return image.numpy()
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
