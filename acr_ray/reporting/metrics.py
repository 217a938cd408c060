"""The numbers of the field, each a function of one source. Nothing here is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from acr_ray.reporting.budget import at_budget
from acr_ray.reporting.source import Source
from acr_ray.smoothing.bounds import max_radius


def acr(source: Source) -> float:
    """Return the average certified radius: the mean over all images of the radius if correct, else 0, in input units.

    Of an ECDF file, which holds no radii, it is an estimate from p_A: see `read_ecdf` and `budget.at_budget`.
    """
    if source.rows is None:
        return at_budget(source.distribution, source.sigma, source.n, source.alpha).acr
    return float(source.rows.counted_radius.mean())


def certified_accuracy(source: Source, radii: Sequence[float]) -> list[float]:
    """Return the share of images that are correct with a certified radius of at least each ``r``, in [0, 1]."""
    if source.rows is None:
        return at_budget(source.distribution, source.sigma, source.n, source.alpha).certified_accuracy(radii)
    held = np.sort(source.rows.radius[source.rows.correct])
    return [float(held.size - np.searchsorted(held, r, side="left")) / source.rows.radius.size for r in radii]


def certified_accuracy_steps(source: Source, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most ``most`` + 2 points (r, certified accuracy at r) for drawing, each exact, from 0 to the last radius."""
    if source.rows is None:
        at = at_budget(source.distribution, source.sigma, source.n, source.alpha)
        held, share = at.radii, at.weight / at.total
    else:
        held, counts = np.unique(source.rows.radius[source.rows.correct], return_counts=True)
        share = counts / source.rows.radius.size
    if held.size == 0:
        return np.array([0.0]), np.array([0.0])
    tail = np.cumsum(share[::-1])[::-1]
    keep = np.unique(np.linspace(0, held.size - 1, min(most, held.size)).astype(int))
    return np.concatenate([[0.0], held[keep], held[-1:]]), np.concatenate([tail[:1], tail[keep], [0.0]])


def hard_share(source: Source) -> float:
    """Return the share of images with an estimated p_A of the true label below 1/2.

    Where a file holds radii only, the images that are not certified and correct: an abstention whose true
    p_A lies a little above 1/2 counts as hard there.
    """
    return source.distribution.below(0.5)


def abstained_share(source: Source) -> float | None:
    """Return the share of images without a certified class; ``None`` if the source holds no images."""
    return None if source.rows is None else float((source.rows.predicted < 0).mean())


@dataclass(frozen=True)
class Constant:
    """The classifier that answers one class whatever it sees: the reference line for ACR (Theorem 1).

    Attributes:
        share: share of the images with its class, in (0, 1]: its certified accuracy up to ``ceiling``.
        ceiling: ``sigma * Phi^-1(alpha**(1/n))``, the radius that it certifies everywhere.
        grid: the only radii that are asked for, ascending; empty: all.
    """

    share: float
    sigma: float
    n: int
    alpha: float
    images: int
    grid: tuple[float, ...] = ()

    @cached_property
    def ceiling(self) -> float:
        return max_radius(self.sigma, self.n, self.alpha)

    @property
    def acr(self) -> float:
        """On a grid the largest of its radii below the ceiling counts, as it does for the sources."""
        counted = max((r for r in self.grid if r <= self.ceiling), default=0.0) if self.grid else self.ceiling
        return self.share * counted

    @property
    def hard_share(self) -> float:
        return 1.0 - self.share

    def certified_accuracy(self, radii: Sequence[float]) -> list[float]:
        return [self.share if r <= self.ceiling else 0.0 for r in radii]


def constant_classifier(source: Source) -> Constant | None:
    """Return the best constant classifier on the images of ``source``, at its sigma, n and alpha."""
    if source.rows is None:
        return None
    _, counts = np.unique(source.rows.label, return_counts=True)
    images = source.rows.label.size
    return Constant(float(counts.max()) / images, source.sigma, source.n, source.alpha, images, source.grid)
