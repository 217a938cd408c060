"""The smoothed classifier as one object: CERTIFY, PREDICT and p_A on any module, without Ray."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.decide import Certificate, certify, predict
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.pixels import checked_alpha, checked_image, checked_sigma, checked_whole
from acr_ray.smoothing.plan import Phase, phases
from acr_ray.smoothing.rules import ONE_CLASS_KIND


class SmoothedClassifier:
    """``g(x) = argmax_c P[f(x + N(0, sigma² I)) = c]``, estimated from seeded draws.

    Args:
        model: the base classifier f; see `SamplingEngine`. It is copied, and prepared by `arithmetic.prepare`: later
            training does not change what is certified.
        num_classes: number of classes.
        sigma: noise in input units, > 0.
        seed: of all draws. The draws of an image also depend on its name: give different images different names,
            or their errors are not independent.
        block: draws of one forward pass.
        device: ``"cpu"`` or a CUDA device.
        dtype, compiled: arithmetic of the network, see `arithmetic.prepare`.
        shape: (C, H, W) of the images, where only one is right (a checkpoint's ``card.shape``).

    Images are tensors or arrays ``(C, H, W)`` of floating-point numbers in [0, 1], not normalised: that is the model's
    first layer. All else is refused (`pixels.checked_image`): another range would be certified as something else.

    Raises:
        ValueError: here and in every method: a value out of its range; says which, and what is allowed.

    `certify` gives exactly the counts that a certification job gives for the same seed, name, n0, n and block.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        sigma: float,
        *,
        seed: int = 0,
        block: int = 500,
        device: str = "cpu",
        dtype: str = "float32",
        compiled: bool = False,
        shape: Sequence[int] | None = None,
    ) -> None:
        sigma, num_classes = checked_sigma(sigma), checked_whole("num_classes", num_classes)
        self.seed, self.block = checked_whole("seed", seed, 0), checked_whole("block", block)
        self.shape = None if shape is None else tuple(shape)
        ready = prepare(model, device=device, dtype=dtype, compiled=compiled)
        self.engine = SamplingEngine(ready, num_classes, sigma, device)

    def counts(self, image: Tensor | NDArray, phase: Phase, name: str) -> NDArray[np.int64]:
        """Class counts ``(num_classes,)`` of a whole phase for an image ``(C, H, W)``."""
        image = checked_image(image, self.shape)
        return self.engine.count(image, name, self.seed, phase, 0, phase.blocks)

    def certify(
        self,
        image: Tensor | NDArray,
        *,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        name: str = "image",
        certificate: str = ONE_CLASS_KIND,
    ) -> Certificate:
        """A certificate for one image ``(C, H, W)``, wrong with probability at most alpha.

        Args:
            certificate: ``one-class``, the field's, or ``two-class``, whose radius is larger; see `decide.certify`.
        """
        n0, n, alpha = checked_whole("n0", n0), checked_whole("n", n), checked_alpha(alpha)
        select, estimate = phases(n0, n, self.block)
        counts0, counts = self.counts(image, select, name), self.counts(image, estimate, name)
        return certify(counts0, counts, self.engine.sigma, alpha, certificate)

    def predict(self, image: Tensor | NDArray, *, n: int = 1000, alpha: float = 0.001, name: str = "image") -> int:
        """The smoothed classifier's class, or -1 (abstain); another class with probability at most alpha."""
        n, alpha = checked_whole("n", n), checked_alpha(alpha)
        return predict(self.counts(image, Phase("predict", n, min(n, self.block)), name), alpha)

    def p_a(self, image: Tensor | NDArray, label: int, *, n: int = 1000, name: str = "image") -> float:
        """The estimate of ``P[f(x + δ) = label]`` from n draws, in [0, 1]."""
        n, label = checked_whole("n", n), checked_whole("label", label, 0)
        if label >= self.engine.num_classes:
            raise ValueError(f"label: {label}; the model has classes 0 to {self.engine.num_classes - 1}")
        return int(self.counts(image, Phase("p_a", n, min(n, self.block)), name)[label]) / n
