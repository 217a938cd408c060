"""The sampling engine: noisy images in, class counts out. Used by CERTIFY, PREDICT and every p_A estimate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.smoothing.arithmetic import input_dtype
from acr_ray.smoothing.lattice_law import LatticeLaw
from acr_ray.smoothing.noise import FloatNoise, LatticeNoise, Noise
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.tracing import PASSES


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
        levels: draw lattice noise of step ``1 / levels`` (`lattice_law.levels_for`); None: float noise.

    On CPU a block's counts are bit for bit the same for the same number of torch threads; the jobs use one.
    """

    def __init__(
        self, model: nn.Module, num_classes: int, sigma: float, device: str = "cpu", levels: int | None = None
    ) -> None:
        self.model, self.num_classes, self.sigma, self.device = model, num_classes, sigma, device
        self.levels = levels
        self.evaluations = 0  # noisy forward passes since the engine was made, surplus of last blocks included
        self._modules = list(model.modules())
        self.noise: Noise = (
            FloatNoise(sigma, device)
            if levels is None
            else LatticeNoise(LatticeLaw(sigma, levels), device, input_dtype(model))
        )

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
        with torch.inference_mode(), evaluating(self.model, self._modules):
            noisy = self.noise.seeded(self.noise.placed(images), seeds, draws)
            classes, finite = self._classes(noisy)
        _check(finite)
        return classes.unflatten(0, (len(seeds), draws))

    def answers_to(self, noisy: Tensor) -> Tensor:
        """The classes of noisy copies that `noise` has made, in one forward pass.

        Args:
            noisy: ``(rows, C, H, W)``.

        Returns:
            int64 ``(rows,)`` on the engine's device.

        Raises:
            BrokenModelError, ValueError: as `predictions`.
        """
        with torch.inference_mode(), evaluating(self.model, self._modules):
            classes, finite = self._classes(noisy)
        _check(finite)
        return classes

    def _classes(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """The class of each row, and whether all logits are finite as a tensor: reading it would wait for the device.

        To be called in inference mode, the model in evaluation mode.
        """
        classes, finite = self.answers_by_row(noisy)
        return classes, finite.all()

    def answers_by_row(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """The class of each row, and whether its logits are finite; reading them waits for the device.

        To be called in inference mode and within `evaluating`.

        Args:
            noisy: ``(rows, C, H, W)``.

        Returns:
            int64 and bool, ``(rows,)``.

        Raises:
            ValueError: the model's output has another shape.
        """
        with PASSES.passing():
            logits = self.model(noisy)
        if logits.shape != (len(noisy), self.num_classes):
            raise ValueError(f"the model gives {tuple(logits.shape)}, not {(len(noisy), self.num_classes)}")
        self.evaluations += len(noisy)
        return logits.argmax(1), torch.isfinite(logits).all(1)

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
        total = torch.zeros(len(images), self.num_classes, dtype=torch.int64, device=self.device)
        one = torch.ones((), dtype=torch.int64, device=self.device)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        with torch.inference_mode(), evaluating(self.model, self._modules):
            for classes, fine in self._answers(images, names, run_seed, phase, first, stop):
                total.scatter_add_(1, classes, one.expand_as(classes))
                finite &= fine
        _check(finite)
        return total.cpu().numpy()

    def _answers(
        self, images: Tensor, names: Sequence[str], run_seed: int, phase: Phase, first: int, stop: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each block the classes of the draws that count, ``(B, draws)``, and whether its logits are finite."""
        copies = self.noise.blocks(self.noise.placed(images), names, run_seed, phase, first, stop)
        for block, noisy in enumerate(copies, first):
            classes, fine = self._classes(noisy)
            yield classes.unflatten(0, (len(names), phase.block))[:, : phase.counted(block)], fine

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
        labels = labels.to(self.device)
        total = torch.zeros(len(images), dtype=torch.int64, device=self.device)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        with torch.inference_mode(), evaluating(self.model, self._modules):
            for classes, fine in self._answers(images, names, run_seed, phase, 0, phase.blocks):
                total += (classes == labels[:, None]).sum(1)
                finite &= fine
        _check(finite)
        return total.cpu().numpy()
