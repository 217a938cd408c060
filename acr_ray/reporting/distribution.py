"""The distribution of p_A: what a set of certificates says, before any budget or average is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Distribution:
    """Estimates of p_A over a set of images, as distinct values and the share of images at each.

    Attributes:
        p: distinct estimates in [``known_from``, 1], ascending, shape (k,).
        weight: images at each value, shape (k,): whole numbers, so that shares are exact; of a curve
            without images, shares of 1. What is missing from ``total`` lies somewhere below
            ``known_from``; where, the source does not say.
        total: number of images, or 1 for a curve.
        known_from: 0 if counts of the true label are known, 0.5 for files that hold radii only.
        images: number of images; ``None`` if the source does not say.
    """

    p: NDArray[np.float64]
    weight: NDArray[np.float64]
    total: float
    known_from: float
    images: int | None

    @classmethod
    def of_images(cls, p_a: ArrayLike, known_from: float = 0.0) -> Distribution:
        """From one estimate an image; NaN stands for "below ``known_from``"."""
        p_a = np.asarray(p_a, dtype=np.float64)
        known = p_a[~np.isnan(p_a)]
        p, counts = np.unique(known, return_counts=True)
        return cls(p, counts.astype(np.float64), float(max(p_a.size, 1)), known_from, int(p_a.size))

    def at_least(self, x: ArrayLike) -> NDArray[np.float64]:
        """Share of images with p_A >= x: the ECDF as the paper draws it (its Figure 9).

        Args:
            x: probabilities, any shape. Below ``known_from`` the answer is NaN (but 1 at x <= 0).
        """
        x = np.asarray(x, dtype=np.float64)
        share = self._weight_from(x) / self.total
        return np.where(x <= 0, 1.0, np.where(x < self.known_from, np.nan, np.clip(share, 0.0, 1.0)))

    def below(self, x: float) -> float:
        """Share of images with p_A < x; ``x`` must not lie below ``known_from``."""
        if x < self.known_from:
            raise ValueError(f"p_A is known from {self.known_from} up only, not at {x}")
        return float((self.total - self._weight_from(np.asarray(x))) / self.total)

    def _weight_from(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        tail = np.concatenate([np.cumsum(self.weight[::-1])[::-1], [0.0]])
        return tail[np.searchsorted(self.p, x - 1e-12, side="left")]

    def steps(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """At most ``most`` points ``(x, share with p_A >= x)`` for drawing, each of them exact.

        The tail near 1 is where methods differ and where radii explode, so points are spread evenly
        over the distinct values and over log(1 - p).
        """
        start = self.known_from
        x = np.unique(np.concatenate([[start], self.p[self.p >= start], [1.0]]))
        if x.size > most:
            spread = np.linspace(start, 1.0, most // 2)
            tail = 1.0 - np.logspace(np.log10(max(1.0 - start, 1e-9)), -7, most // 2)
            wanted = np.searchsorted(x, np.concatenate([spread, tail]))
            x = x[np.unique(np.concatenate([[0], np.minimum(wanted, x.size - 1), [x.size - 1]]))]
        return x, self.at_least(x)


def dkw_half_width(images: int, confidence: float = 0.95) -> float:
    """Half width of the Dvoretzky-Kiefer-Wolfowitz band around an ECDF of ``images`` samples.

    ``sqrt(log(2 / (1 - confidence)) / (2 images))``, with Massart's (1990) constant: the whole true curve
    lies within the band with at least this probability. It covers the choice of images, not the noise
    in each p_A: see `acr_ray.reporting.intervals.p_a_bounds` for that.
    """
    if images < 1 or not 0 < confidence < 1:
        raise ValueError("images must be at least 1 and confidence in (0, 1)")
    return float(np.sqrt(np.log(2.0 / (1.0 - confidence)) / (2.0 * images)))
