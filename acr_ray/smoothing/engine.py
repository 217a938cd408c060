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
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module has the mode that it had, mixed modes included."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


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
        with torch.inference_mode(), evaluating(self.model):
            noisy = standard_normal(seeds, draws, tuple(images.shape[1:]), self.device).mul_(self.sigma)
            copies = noisy.unflatten(0, (len(seeds), draws))
            copies += images.to(self.device)[:, None]
            logits = self.model(noisy)
            if logits.shape != (len(noisy), self.num_classes):
                raise ValueError(f"the model gives {tuple(logits.shape)}, not {(len(noisy), self.num_classes)}")
            if not torch.isfinite(logits).all():
                raise BrokenModelError("the model answers with NaN or infinite logits")
            self.evaluations += len(noisy)
            return logits.argmax(1).unflatten(0, (len(seeds), draws))

    def count(self, image: Tensor, name: str, run_seed: int, phase: Phase, first: int, stop: int) -> NDArray[np.int64]:
        """Class counts of the blocks ``first`` to ``stop - 1`` of one image.

        Args:
            image: ``(C, H, W)`` float32 in [0, 1].
            name: the image's stable name, part of the noise's seed.

        Returns:
            int64 ``(num_classes,)``, summing to the counted draws of those blocks.
        """
        total = torch.zeros(self.num_classes, dtype=torch.int64, device=self.device)
        for block in range(first, stop):
            seed = phase.seed(run_seed, name, block)
            classes = self.predictions(image[None], [seed], phase.block)[0, : phase.counted(block)]
            total += torch.bincount(classes, minlength=self.num_classes)
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
        total = torch.zeros(len(images), dtype=torch.int64, device=self.device)
        for block in range(phase.blocks):
            seeds = [phase.seed(run_seed, name, block) for name in names]
            classes = self.predictions(images, seeds, phase.block)[:, : phase.counted(block)]
            total += (classes == labels.to(self.device)[:, None]).sum(1)
        return total.cpu().numpy()
