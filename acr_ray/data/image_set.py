"""What a set of labelled images is, and the kind that lies in memory."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch

from acr_ray.data.classes import places_of


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
        mean, std: per channel, of inputs in [0, 1].
        peak: the pixel value that stands for 1.
        remarks: lines that the user should see, such as which files were left out.
        in_memory: whether reading is so cheap that loader processes would only cost.
    """

    in_memory = True
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
        mean: tuple[float, ...],
        std: tuple[float, ...],
        peak: int = 255,
    ) -> None:
        self.dataset, self.split = dataset, split
        self.labels = np.asarray(labels, dtype=np.int64)
        self.names = tuple(names)
        self.idx = np.arange(len(self.labels), dtype=np.int64)
        self.class_names = tuple(class_names)
        self.shape, self.mean, self.std, self.peak = shape, mean, std, peak
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{self.dataset} {self.split}: {len(self)} images of {self.shape}>"

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
        """The same before scaling: uint8 (B, C, H, W), values 0 to `peak`; what travels between processes."""
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
        found.class_names, found._fingerprint = tuple(class_names), None
        return found

    def in_order_of(self, class_names: Sequence[str], where: str) -> Self:
        """The same images, their labels counted in the order of a model's classes.

        Args:
            class_names: the model's.
            where: the model, for messages.

        Raises:
            UserError: these are not the classes of the images; shows both lists.
        """
        if tuple(class_names) == self.class_names:
            return self
        found = self.named(class_names)
        found.labels = places_of(self.class_names, class_names, where)[self.labels]
        return found

    @abstractmethod
    def _evaluation_view(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) of rows of the full split."""

    @abstractmethod
    def _training_view(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) of rows of the full split; one seed each."""

    @abstractmethod
    def _content(self) -> bytes:
        """What the fingerprint takes of the images themselves."""


class MemorySet(ImageSet):
    """All images of the split in one array.

    Args:
        images: uint8 (N, C, H, W).
        training_view: (images (B, C, H, W), seeds (B,)) to images of the same shape; None: as in evaluation.
        others: what `ImageSet` takes, but for the shape.
    """

    def __init__(
        self,
        images: np.ndarray,
        training_view: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        **others: object,
    ) -> None:
        super().__init__(shape=images.shape[1:], **others)  # type: ignore[arg-type]
        self._images, self._augment = images, training_view

    def _evaluation_view(self, rows: np.ndarray) -> np.ndarray:
        return self._images[rows]

    def _training_view(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        images = self._images[rows]
        return images if self._augment is None else self._augment(images, seeds)

    def _content(self) -> bytes:
        return hashlib.sha256(self._images[self.idx].tobytes()).digest()


def to_unit_range(pixels: torch.Tensor, peak: int, pin_memory: bool = False) -> torch.Tensor:
    """uint8 pixels to float32 in [0, 1], in page-locked memory where asked for."""
    return torch.empty(pixels.shape, dtype=torch.float32, pin_memory=pin_memory).copy_(pixels).div_(peak)
