"""What a set of labelled images is, and the kind that lies in memory."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import numpy as np
import torch

from acr_ray.data.classes import places_of
from acr_ray.data.framing import Framing
from acr_ray.settings import UserError

View = Callable[[np.ndarray, np.ndarray], np.ndarray]


class ImageSet(ABC):
    """Labelled images of one split; item i is the i-th of this set.

    Attributes:
        dataset: name in the settings.
        split: ``train`` or ``test``.
        labels: int64 (N,), in range(len(class_names)).
        names: N stable names, the same on every machine.
        idx: int64 (N,): index within the full split; kept by subsets.
        class_names: name of each class.
        shape: (C, H, W) of both views.
        mean, std: per channel, of inputs in [0, 1]; computed from the split's evaluation views if they were not given.
        peak: the pixel value that stands for 1.
        bare_labels: whether the classes have no names, so that label k is a model's class k.
        remarks: lines that the user should see, such as which files were left out.
        in_memory: whether reading is so cheap that loader processes would only cost.
    """

    in_memory = True
    bare_labels = False
    remarks: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        dataset: str,
        split: str,
        labels: np.ndarray,
        names: Sequence[str],
        class_names: Sequence[str],
        shape: tuple[int, int, int],
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        peak: int = 255,
    ) -> None:
        self.dataset, self.split = dataset, split
        self.labels = np.asarray(labels, dtype=np.int64)
        self.names = tuple(names)
        self.idx = np.arange(len(self.labels), dtype=np.int64)
        self.class_names = tuple(class_names)
        self.shape, self.peak, self._total = shape, peak, len(self.labels)
        self._constants = None if mean is None or std is None else (tuple(mean), tuple(std))
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{self.dataset} {self.split}: {len(self)} images of {self.shape}>"

    @property
    def grid(self) -> int:
        """Steps of the pixels' grid in a unit: `peak`, or 255 where pixels are floats, which may lie between."""
        return self.peak if self.peak > 1 else 255

    @property
    def mean(self) -> tuple[float, ...]:
        return self._normalisation()[0]

    @property
    def std(self) -> tuple[float, ...]:
        return self._normalisation()[1]

    def _normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self._constants is None:  # of the whole split, so that a part of it is normalised as the whole
            portions = (np.arange(at, min(at + 256, self._total)) for at in range(0, self._total, 256))
            self._constants = mean_and_std(map(self._evaluation_view, portions), self.peak)
        return self._constants

    def load(self, items: Sequence[int] | np.ndarray, view_seeds: Sequence[int] | np.ndarray | None) -> torch.Tensor:
        """float32 (B, C, H, W) in [0, 1] on the CPU.

        Args:
            items: B indices into this set.
            view_seeds: None: the evaluation view; else B seeds: the training view of each item, drawn from its own
                seed alone, whatever the batch, the order or the process.

        Raises:
            UserError: a file is missing or broken; names it.
        """
        return to_unit_range(self.pixels(items, view_seeds), self.peak)

    def pixels(self, items: Sequence[int] | np.ndarray, view_seeds: Sequence[int] | np.ndarray | None) -> torch.Tensor:
        """The same before scaling: (B, C, H, W), values 0 to `peak`, uint8 or float32; what travels."""
        rows = self.idx[np.asarray(items, dtype=np.int64)]
        if view_seeds is None:
            return torch.from_numpy(self._evaluation_view(rows))
        seeds = np.asarray(view_seeds, dtype=np.int64)
        if seeds.shape != rows.shape:
            raise ValueError(f"view_seeds: shape {seeds.shape}; allowed: {rows.shape}, one an item")
        return torch.from_numpy(self._training_view(rows, seeds))

    def fingerprint(self) -> str:
        """SHA-256 (hex) that changes when other images, labels or names lie there."""
        if self._fingerprint is None:
            found = hashlib.sha256(repr((self.dataset, self.split, self.class_names, self.shape)).encode())
            found.update("\n".join(self.names).encode())
            found.update(self.labels.astype("<i8").tobytes())
            found.update(self._content())
            self._fingerprint = found.hexdigest()
        return self._fingerprint

    def subset(self, items: Sequence[int] | np.ndarray) -> Self:
        """These items in this order, over the same storage; names and idx stay theirs."""
        items = np.asarray(items, dtype=np.int64)
        chosen = copy.copy(self)
        chosen.labels, chosen.idx = self.labels[items], self.idx[items]
        chosen.names = tuple(self.names[i] for i in items)
        chosen._fingerprint = None
        return chosen

    def named(self, class_names: Sequence[str]) -> Self:
        """The same images with other names for their classes, in the same order."""
        found = copy.copy(self)
        found.class_names, found.bare_labels, found._fingerprint = tuple(class_names), False, None
        return found

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> Self:
        """The same images with other normalisation constants for networks trained on them.

        Raises:
            UserError: there is not one pair a channel.
        """
        if not len(mean) == len(std) == self.shape[0]:
            raise UserError(f"data.mean and data.std: {len(mean)} and {len(std)} values for {self.shape[0]} channels")
        found = copy.copy(self)
        found._constants = (tuple(mean), tuple(std))
        return found

    def in_order_of(self, class_names: Sequence[str], where: str) -> Self:
        """The same images, their labels counted in the order of a model's classes.

        Classes without names keep their numbers.

        Args:
            class_names: the model's.
            where: the model, for messages.

        Raises:
            UserError: these are not the classes of the images; shows both lists.
        """
        if tuple(class_names) == self.class_names:
            return self
        found = self.named(class_names)
        if self.bare_labels:
            if len(self.class_names) > len(class_names):
                raise UserError(
                    f"{where}: has {len(class_names)} classes; the data's labels go to {len(self.class_names) - 1}"
                )
            return found
        found.labels = places_of(self.class_names, class_names, where)[self.labels]
        return found

    @abstractmethod
    def _evaluation_view(self, rows: np.ndarray) -> np.ndarray:
        """(B, C, H, W) of rows of the full split, uint8 or float32."""

    @abstractmethod
    def _training_view(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Likewise; one seed each."""

    @abstractmethod
    def _content(self) -> bytes:
        """What the fingerprint takes of the images themselves."""


class MemorySet(ImageSet):
    """All images of the split in one array.

    Args:
        images: uint8 (N, C, H, W), or float32 with ``peak=1``.
        training_view: (images (B, C, H, W), seeds (B,)) to images of the same shape; None: as in evaluation.
        framing: how they become squares, when they are read; none: as they are.
        others: what `ImageSet` takes, but for the shape.
    """

    def __init__(
        self,
        images: np.ndarray,
        training_view: View | None = None,
        framing: Framing = Framing(),  # noqa: B008 - frozen
        **others: object,
    ) -> None:
        side = framing.size
        shape = images.shape[1:] if side is None else (images.shape[1], side, side)
        super().__init__(shape=shape, **others)  # type: ignore[arg-type]
        self._images, self._augment, self._framing = images, training_view, framing

    def _evaluation_view(self, rows: np.ndarray) -> np.ndarray:
        images = self._images[rows]
        if self.shape == images.shape[1:] and self._framing.usual:
            return images
        found = np.empty((len(rows), *self.shape), dtype=images.dtype)
        for place, image in enumerate(images):  # one by one, so that no pixel depends on its neighbours in a batch
            found[place] = self._framing(torch.from_numpy(image)).numpy()
        return found

    def _training_view(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        images = self._evaluation_view(rows)
        return images if self._augment is None else self._augment(images, seeds)

    def _content(self) -> bytes:
        return hashlib.sha256(self._images[self.idx].tobytes() + self._framing.identity).digest()


def mean_and_std(portions: Iterable[np.ndarray], peak: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, of images (B, C, H, W) in portions, scaled to [0, 1]: in float64, rounded to 4 decimals.

    A channel that is the same everywhere has a std of 1.
    """
    count, first, second = 0, np.zeros(0), np.zeros(0)
    for images in portions:
        scaled = images.astype(np.float64) / peak
        sums, squares = scaled.sum(axis=(0, 2, 3)), (scaled**2).sum(axis=(0, 2, 3))
        first, second = (first + sums, second + squares) if count else (sums, squares)
        count += images.shape[0] * images.shape[2] * images.shape[3]
    mean = first / count
    std = np.sqrt(np.maximum(second / count - mean**2, 0)).round(4)
    return tuple(mean.round(4).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def to_unit_range(pixels: torch.Tensor, peak: int, pin_memory: bool = False) -> torch.Tensor:
    """Pixels, uint8 or float32, to float32 in [0, 1], in page-locked memory where asked for."""
    return torch.empty(pixels.shape, dtype=torch.float32, pin_memory=pin_memory).copy_(pixels).div_(peak)
