"""The sampling engine: noisy images in, class counts out. Used by CERTIFY, PREDICT and every p_A estimate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.smoothing.noise import standard_normal
from acr_ray.smoothing.plan import Phase


class BrokenModelError(RuntimeError):
    """The model answers with NaN or infinite logits; counts of its classes would mean nothing."""


@contextmanager
def evaluating(model: nn.Module, modules: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module has the mode that it had, mixed modes included.

    Args:
        modules: the model's modules where the caller has the list at hand: making it costs as much as a small block.
    """
    training = [module for module in (model.modules() if modules is None else modules) if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check(finite: Tensor) -> None:
    if not bool(finite):
        raise BrokenModelError("the model answers with NaN or infinite logits")


class SamplingEngine:
    """Counts a classifier's answers under Gaussian noise.

    Args:
        model: maps ``(B, C, H, W)`` in [0, 1] plus noise to logits ``(B, num_classes)``; used in evaluation mode,
            its own modes are restored after each call. It must lie on ``device``.
        num_classes: length of the logits.
        sigma: standard deviation of the noise in input units, > 0.
        device: ``"cpu"`` or a CUDA device.

    On CPU a block's counts are bit for bit the same for the same number of torch threads; the jobs use one.
    """

    def __init__(self, model: nn.Module, num_classes: int, sigma: float, device: str = "cpu") -> None:
        self.model, self.num_classes, self.sigma, self.device = model, num_classes, sigma, device
        self.evaluations = 0  # noisy forward passes since the engine was made, surplus of last blocks included
        self._modules = list(model.modules())
        self._buffer: Tensor | None = None  # one block of noise: a new one each time would fault its pages in again

    def predictions(self, images: Tensor, seeds: Sequence[int], draws: int) -> Tensor:
        """The classes of ``draws`` noisy copies of each image.

        Args:
            images: ``(B, C, H, W)`` float32 in [0, 1].
            seeds: one for each image.
            draws: noisy copies of each image; the forward pass has ``B * draws`` rows.

        Returns:
            int64 ``(B, draws)`` on the engine's device.

        Raises:
            BrokenModelError: a logit is not finite.
            ValueError: the model's output has another shape.
        """
        classes, finite = self._predict(images.to(self.device), seeds, draws)
        _check(finite)
        return classes

    def _predict(self, images: Tensor, seeds: Sequence[int], draws: int) -> tuple[Tensor, Tensor]:
        """As `predictions`, with whether all logits are finite as a tensor: reading it would wait for the device."""
        with torch.inference_mode(), evaluating(self.model, self._modules):
            _, channels, height, width = images.shape
            rows = (len(seeds), draws, height, width, channels)
            if self._buffer is None or self._buffer.shape != rows:
                self._buffer = torch.empty(rows, dtype=torch.float32, device=self.device)
            noise = standard_normal(seeds, draws, (channels, height, width), self.device, self._buffer)
            copies = noise.unflatten(0, (len(seeds), draws))
            torch.add(images[:, None], copies, alpha=self.sigma, out=copies)
            logits = self.model(noise)
            if logits.shape != (len(noise), self.num_classes):
                raise ValueError(f"the model gives {tuple(logits.shape)}, not {(len(noise), self.num_classes)}")
            self.evaluations += len(noise)
            return logits.argmax(1).unflatten(0, (len(seeds), draws)), torch.isfinite(logits).all()

    def count(self, image: Tensor, name: str, run_seed: int, phase: Phase, first: int, stop: int) -> NDArray[np.int64]:
        """Class counts of the blocks ``first`` to ``stop - 1`` of one image.

        Args:
            image: ``(C, H, W)`` float32 in [0, 1].
            name: the image's stable name, part of the noise's seed.

        Returns:
            int64 ``(num_classes,)``, summing to the counted draws of those blocks.

        Raises:
            BrokenModelError: a logit is not finite.
        """
        return self.count_images(image[None], [name], run_seed, phase, first, stop)[0]

    def count_images(
        self, images: Tensor, names: Sequence[str], run_seed: int, phase: Phase, first: int, stop: int
    ) -> NDArray[np.int64]:
        """The same for several images, ``len(images) * phase.block`` rows in each forward pass.

        The device is not waited for before the last block, so it never idles between two.

        Args:
            images: ``(B, C, H, W)``.
            names: B stable names.

        Returns:
            int64 ``(B, num_classes)``.
        """
        images = images.to(self.device)
        total = torch.zeros(len(images), self.num_classes, dtype=torch.int64, device=self.device)
        one = torch.ones((), dtype=torch.int64, device=self.device)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for block in range(first, stop):
            seeds = [phase.seed(run_seed, name, block) for name in names]
            classes, fine = self._predict(images, seeds, phase.block)
            classes = classes[:, : phase.counted(block)]
            total.scatter_add_(1, classes, one.expand_as(classes))
            finite &= fine
        _check(finite)
        return total.cpu().numpy()

    def count_label(
        self, images: Tensor, labels: Tensor, names: Sequence[str], run_seed: int, phase: Phase
    ) -> NDArray[np.int64]:
        """How many of a phase's draws of each image get the image's own label: ``draws`` times p̂_A.

        Args:
            images: ``(B, C, H, W)``, passed through the model ``B * phase.block`` rows at a time.
            labels: ``(B,)``.

        Returns:
            int64 ``(B,)`` in [0, phase.draws].
        """
        images, labels = images.to(self.device), labels.to(self.device)
        total = torch.zeros(len(images), dtype=torch.int64, device=self.device)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for block in range(phase.blocks):
            seeds = [phase.seed(run_seed, name, block) for name in names]
            classes, fine = self._predict(images, seeds, phase.block)
            total += (classes[:, : phase.counted(block)] == labels[:, None]).sum(1)
            finite &= fine
        _check(finite)
        return total.cpu().numpy()
