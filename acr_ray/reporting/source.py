"""One set of certificates, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acr_ray.reporting.distribution import Distribution
from acr_ray.reporting.noise import SourceNoise
from acr_ray.smoothing.bounds import max_radius
from acr_ray.smoothing.distribution_rule import FROM, LOOKS, UPTO
from acr_ray.smoothing.ecdf_band import EcdfBand, ecdf_band
from acr_ray.smoothing.lattice_law import alpha_left
from acr_ray.smoothing.rules import (
    DISTRIBUTION,
    ONE_CLASS_KIND,
    PLAIN,
    RADII,
    RANDOMIZED,
    TWO_CLASS,
    TWO_CLASS_RADII,
    WIDTH,
    certificate_kind,
)
from acr_ray.smoothing.run_noise import FLOAT

#: Radii closer than this are the same.
SAME_RADIUS = 1e-9
#: Bounds of runs that ask for some radii only.
GRIDS = (RADII, TWO_CLASS_RADII)
#: ``predicted`` of an image on which the classifier abstained.
ABSTAINED = -1
#: Error that a band around the distribution of p_A is made for, where no other was asked for.
DEFAULT_BAND = 0.01


@dataclass(frozen=True)
class Rows:
    """What a source says of each image; all arrays have one entry an image.

    Attributes:
        idx: index in the dataset, int64, unique.
        label: true class, int64.
        predicted: certified class, int64; `ABSTAINED` if none was certified.
        radius: certified l2 radius for ``predicted``, float64, in input units; 0 if it abstained.
        p_a: estimate of P[f(x + noise) = label], float64; NaN if the source only says that it is not
            certified to exceed 1/2.
        count, draws: the counts behind ``p_a`` if the source holds them, int64; else ``None``.
        image: stable names of the images, a pyarrow string array; ``None`` if the source has none.
        selected: class that the selection draws chose, int64, certified or not; ``None`` if unknown.
        count_top: how many of ``draws`` gave ``selected``, int64; ``None`` if unknown.
        count_second: the most of ``draws`` that any other class got, int64; ``None`` if unknown.
        stopped: whether it ended with its selection draws, so that ``draws`` are those, bool; ``None``: none did.
    """

    idx: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    radius: NDArray[np.float64]
    p_a: NDArray[np.float64]
    count: NDArray[np.int64] | None = None
    draws: NDArray[np.int64] | None = None
    image: Any = None
    selected: NDArray[np.int64] | None = None
    count_top: NDArray[np.int64] | None = None
    count_second: NDArray[np.int64] | None = None
    stopped: NDArray[np.bool_] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        return self.predicted == self.label

    @property
    def counted_radius(self) -> NDArray[np.float64]:
        """The radius if the certified class is the true one, else 0: what ACR averages."""
        return np.where(self.correct, self.radius, 0.0)


@dataclass(frozen=True)
class Source:
    """Certificates of one method at one noise level.

    Attributes:
        name: how tables and figures call it.
        kind: ``certificates`` (our counts), ``tsv`` (the field's radii) or ``ecdf`` (a curve only).
        where: the file it was read from.
        sigma: standard deviation of the noise in input units, > 0.
        n: noise draws an image (the largest, if they differ).
        alpha: error probability of each certificate, in (0, 1).
        distribution: the distribution of p_A.
        rows: the images; ``None`` for ECDF files.
        planned: how many images the run was meant to certify, if that is known.
        partial: the run itself says that images are missing.
        notes: what the reader has to say about the file, one sentence each.
        assumed: which of sigma, n and alpha are assumptions, not read from the file.
        base_name: the name before it was set apart from another source's; "" if it was not.
        bound: the lower bound behind the radii, as certificates name it (`acr_ray.smoothing.stopping`).
        grid: of a run that stopped once the answers at some radii were known, these radii, ascending: each certified
            radius is the largest of them that is certified. Empty for all others.
        model: SHA-256 of the model's weights; "" if the source does not say.
        precision: arithmetic of the network (``float32``, ``bfloat16``, …), of int8 with its network's hash; "" if the
            source does not say.
        between: of a curve the least and the most that its points allow; ``distribution`` lies between.
        class_names: by label; empty if the source does not say them.
        band: share of images that the distribution of p_A was asked to be known to, of a run that stopped for it.
        noise: what it says of its noise; None if it says nothing.
    """

    name: str
    kind: str
    where: str
    sigma: float
    n: int
    alpha: float
    distribution: Distribution
    rows: Rows | None = None
    planned: int | None = None
    partial: bool = False
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    base_name: str = ""
    bound: str = PLAIN
    grid: tuple[float, ...] = ()
    model: str = ""
    precision: str = ""
    between: tuple[Distribution, Distribution] | None = None
    class_names: tuple[str, ...] = ()
    band: float = DEFAULT_BAND
    noise: SourceNoise | None = None

    @property
    def bound_alpha(self) -> float:
        """The alpha of its bounds: what its noise leaves."""
        return self.alpha if self.noise is None else self.noise.left

    @property
    def grade(self) -> str:
        """What its certificates promise in floating point: ``sound`` or ``float``."""
        return FLOAT if self.noise is None else self.noise.grade

    @property
    def sequential(self) -> bool:
        """Whether the counts themselves decided when drawing ended.

        The share of a class among such draws is a biased estimate of its probability, so nothing may be derived from
        it as if n had been fixed: no ACR at another budget.
        """
        return self.bound in (RADII, WIDTH, TWO_CLASS_RADII, DISTRIBUTION)

    @cached_property
    def draws_band(self) -> EcdfBand | None:
        """Bounds on the share of *these* images with p_A >= x, with probability 1 - alpha for all x together.

        ``None`` if the source holds no counts, or counts that decided themselves when drawing ended.
        """
        rows = self.rows
        if rows is None or rows.count is None or rows.draws is None or rows.stopped is not None:
            return None
        if self.bound in (PLAIN, RANDOMIZED, TWO_CLASS) and self._shares(len(rows.idx)) < self.alpha:
            return ecdf_band(rows.count, rows.draws, alpha_left(self.alpha, self._shares(len(rows.idx))), self.band)
        if self.bound == DISTRIBUTION:
            return ecdf_band(rows.count, rows.draws, self.bound_alpha, self.band, LOOKS)
        return None

    def _shares(self, images: int) -> float:
        """The part of alpha that the noise takes of a statement about so many images together."""
        return 0.0 if self.noise is None else self.noise.share * images

    @cached_property
    def p_a_error(self) -> float | None:
        """How far the share of these images with p_A >= x may lie from the truth, at most, for x from 0.02 to 0.98.

        With probability 1 - alpha; ``None`` where `draws_band` is.
        """
        rows = self.rows
        if self.draws_band is None or rows is None:
            return None
        assert rows.count is not None and rows.draws is not None
        return round(self.draws_band.error(rows.count, rows.draws, FROM, UPTO), 9)

    @property
    def certificate(self) -> str:
        """The kind of its certificates: ``one-class`` or ``two-class``."""
        return certificate_kind(self.bound)

    @property
    def derivable(self) -> bool:
        """Whether one-class numbers at other budgets may be derived from its p_A and stand beside its own."""
        return not self.sequential and self.certificate == ONE_CLASS_KIND

    @property
    def acr_is_lower(self) -> bool:
        """Whether the ACR is a lower value of what the same draws, all made, would give."""
        return self.sequential

    def is_lower_at(self, radius: float) -> bool:
        """Return whether certified accuracy at ``radius`` is a lower value: off the grid of a run's radii."""
        return self.bound in GRIDS and not any(abs(radius - r) < SAME_RADIUS for r in self.grid)

    @property
    def images(self) -> int | None:
        return self.distribution.images

    @property
    def incomplete(self) -> str:
        """What is missing, as text: ``incomplete: 427 of 500``; empty if nothing is known to be."""
        if self.planned is not None and self.images is not None and self.images < self.planned:
            return f"incomplete: {self.images} of {self.planned}"
        return f"incomplete: {self.images} of more" if self.partial else ""

    @property
    def shown_name(self) -> str:
        """The name as every table and figure must show it: a partial run says so."""
        return f"{self.name} ({self.incomplete})" if self.incomplete else self.name

    @property
    def ceiling(self) -> float:
        """The largest radius that ``n`` draws can certify at ``alpha``."""
        return max_radius(self.sigma, self.n, self.alpha)

    @property
    def method(self) -> str:
        """The name that the same method has at every sigma."""
        return self.base_name or self.name

    def renamed(self, name: str) -> Source:
        """Return the same source set apart from others of its method."""
        return replace(self, name=name, base_name=self.method)
