"""The smoothed classifier as one object: CERTIFY, PREDICT and p_A on any module, without Ray."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.decide import Certificate, certify, predict
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.int8_calibration import calibrate
from acr_ray.smoothing.int8_parameters import Int8Parameters
from acr_ray.smoothing.lattice_law import LatticeLaw, alpha_left, levels_for
from acr_ray.smoothing.noise import off_grid
from acr_ray.smoothing.pixels import checked_alpha, checked_image, checked_images, checked_sigma, checked_whole
from acr_ray.smoothing.plan import Phase, phases
from acr_ray.smoothing.rules import ONE_CLASS_KIND
from acr_ray.smoothing.run_noise import USUAL_GRID, NoiseFacts, noise_facts

Image = Tensor | NDArray
Answer = TypeVar("Answer")


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
        calibration: for dtype ``int8``: images ``(K, C, H, W)`` to calibrate on, under this noise; 100 are enough.
        noise: ``lattice``, the same on every machine and sound in floating point, or ``float``, as the field's; see
            docs/noise.md.
        grid: steps of the images' own grid in a unit, for lattice noise: 255 for 8-bit images, 16 for the digits.
            Images that do not lie on it are rounded; a certificate says how far.
        shape: (C, H, W) of the images, where only one is right (a checkpoint's ``card.shape``).

    Images are tensors or arrays ``(C, H, W)`` of floating-point numbers in [0, 1], not normalised: that is the model's
    first layer. All else is refused (`pixels.checked_image`): another range would be certified as something else.
    Several at once are a batch ``(N, C, H, W)`` with N names.

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
        calibration: Image | None = None,
        shape: Sequence[int] | None = None,
        noise: Literal["lattice", "float"] = "lattice",
        grid: int = USUAL_GRID,
    ) -> None:
        sigma, num_classes = checked_sigma(sigma), checked_whole("num_classes", num_classes)
        self.seed, self.block = checked_whole("seed", seed, 0), checked_whole("block", block)
        self.shape = None if shape is None else tuple(shape)
        if noise not in ("lattice", "float"):
            raise ValueError(f"noise: {noise!r}; allowed: lattice, float")
        self.law = LatticeLaw(sigma, levels_for(sigma, checked_whole("grid", grid))) if noise == "lattice" else None
        int8 = None
        if dtype == "int8":
            int8 = self._calibrated(model, num_classes, sigma, calibration)
        elif calibration is not None:
            raise ValueError("calibration: belongs to dtype int8")
        ready = prepare(model, device=device, dtype=dtype, compiled=compiled, int8=int8)
        self.engine = SamplingEngine(ready, num_classes, sigma, device, None if self.law is None else self.law.levels)

    def _calibrated(
        self, model: nn.Module, num_classes: int, sigma: float, calibration: Image | None
    ) -> Int8Parameters:
        if calibration is None:
            raise ValueError("calibration: missing; dtype int8 needs images (K, C, H, W)")
        names = [f"calibration {k}" for k in range(len(calibration))]
        images = checked_images(calibration, names, self.shape)
        noise = SamplingEngine(model, num_classes, sigma, levels=None if self.law is None else self.law.levels).noise
        # One by one: in memory that is used again.
        noisy = [noise.seeded(noise.placed(image[None]), [key], 1).clone() for key, image in enumerate(images)]
        return calibrate(model, noisy)

    def counts(self, image: Tensor | NDArray, phase: Phase, name: str) -> NDArray[np.int64]:
        """Class counts ``(num_classes,)`` of a whole phase for an image ``(C, H, W)``."""
        image = checked_image(image, self.shape)
        return self.engine.count(image, name, self.seed, phase, 0, phase.blocks)

    @overload
    def certify(
        self,
        image: Image,
        *,
        n0: int = ...,
        n: int = ...,
        alpha: float = ...,
        name: str = ...,
        certificate: str = ...,
        names: None = None,
    ) -> Certificate: ...

    @overload
    def certify(
        self,
        image: Image,
        *,
        n0: int = ...,
        n: int = ...,
        alpha: float = ...,
        name: str = ...,
        certificate: str = ...,
        names: Sequence[str],
    ) -> list[Certificate]: ...

    def certify(
        self,
        image: Image,
        *,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        name: str = "image",
        certificate: str = ONE_CLASS_KIND,
        names: Sequence[str] | None = None,
    ) -> Certificate | list[Certificate]:
        """A certificate for one image ``(C, H, W)``, wrong with probability at most alpha; or one for each of a batch.

        Args:
            image: ``(C, H, W)``; with ``names`` a batch ``(N, C, H, W)``.
            certificate: ``one-class``, the field's, or ``two-class``, whose radius is larger; see `decide.certify`.
            names: N different names, for a batch; each image's certificate is what it would get alone.
        """
        n0, n, alpha = checked_whole("n0", n0), checked_whole("n", n), checked_alpha(alpha)
        select, estimate = phases(n0, n, self.block)

        def one(image: Image, name: str) -> Certificate:
            counts0, counts = self.counts(image, select, name), self.counts(image, estimate, name)
            found = certify(counts0, counts, self.engine.sigma, self._left(alpha, image, n0 + n), certificate)
            facts = self._facts(image, n0 + n)
            rounded = 0.0 if self.law is None else float(off_grid(checked_image(image)[None], self.law.levels))
            return replace(found, noise=facts.name, step=facts.step, grade=facts.grade, rounded=rounded)

        return one(image, name) if names is None else self._each(one, image, names)

    @overload
    def predict(
        self, image: Image, *, n: int = ..., alpha: float = ..., name: str = ..., names: None = None
    ) -> int: ...

    @overload
    def predict(
        self, image: Image, *, n: int = ..., alpha: float = ..., name: str = ..., names: Sequence[str]
    ) -> list[int]: ...

    def predict(
        self,
        image: Image,
        *,
        n: int = 1000,
        alpha: float = 0.001,
        name: str = "image",
        names: Sequence[str] | None = None,
    ) -> int | list[int]:
        """The smoothed classifier's class, or -1 (abstain); another class with probability at most alpha.

        Args:
            image, names: as in `certify`.
        """
        n, alpha = checked_whole("n", n), checked_alpha(alpha)
        phase = Phase("predict", n, min(n, self.block))

        def one(image: Image, name: str) -> int:
            return predict(self.counts(image, phase, name), self._left(alpha, image, n))

        return one(image, name) if names is None else self._each(one, image, names)

    def p_a(self, image: Image, label: int, *, n: int = 1000, name: str = "image") -> float:
        """The estimate of ``P[f(x + δ) = label]`` from n draws, in [0, 1]."""
        n, label = checked_whole("n", n), checked_whole("label", label, 0)
        if label >= self.engine.num_classes:
            raise ValueError(f"label: {label}; the model has classes 0 to {self.engine.num_classes - 1}")
        return int(self.counts(image, Phase("p_a", n, min(n, self.block)), name)[label]) / n

    def _facts(self, image: Image, draws: int) -> NoiseFacts:
        return noise_facts(self.law, self.engine.device, math.prod(image.shape), draws)

    def _left(self, alpha: float, image: Image, draws: int) -> float:
        """What the noise leaves of alpha."""
        return alpha_left(alpha, self._facts(image, draws).share)

    def _each(self, one: Callable[[Tensor, str], Answer], images: Image, names: Sequence[str]) -> list[Answer]:
        """One answer an image. All are looked at before the first draw."""
        batch = checked_images(images, names, self.shape)
        # One by one: in a forward pass shared with others the last bits of a logit could differ.
        return [one(image, name) for image, name in zip(batch, names, strict=True)]
