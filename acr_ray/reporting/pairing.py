"""Two methods on the same images: who gains, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from acr_ray.reporting.budget import at_budget
from acr_ray.reporting.classes import ClassChange, class_changes, is_hard
from acr_ray.reporting.distribution import Distribution
from acr_ray.reporting.intervals import mean_interval
from acr_ray.reporting.source import GRIDS, SAME_RADIUS, Rows, Source

#: Lower edges of the p_A bins; the last bin ends at 1 and includes it.
BIN_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
BIN_NAMES = ("below 0.5", "0.5 to 0.6", "0.6 to 0.7", "0.7 to 0.8", "0.8 to 0.9", "0.9 to 0.99", "0.99 to 1")
#: From this p_A on an image counts as easy in the verdict.
EASY = 0.9


@dataclass(frozen=True)
class Pairing:
    """Which row of one source is which row of another.

    Attributes:
        a, b: row numbers of the shared images, int64, same shape.
        labels_differ: how many shared images the sources label differently.
        first_difference: the index of the first of those; ``None`` if there is none.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    labels_differ: int
    first_difference: int | None

    def swapped(self) -> Pairing:
        return Pairing(self.b, self.a, self.labels_differ, self.first_difference)


@dataclass(frozen=True)
class Bin:
    """The images whose p_A under the baseline lies in one bin.

    Attributes:
        name: the bin, as text.
        images: how many.
        gain: what they add to the difference in ACR, in input units; the bins' gains sum to it.
        gained, lost: how many became certified and correct, and how many no longer are.
    """

    name: str
    images: int
    gain: float
    gained: int
    lost: int


@dataclass(frozen=True)
class Comparison:
    """``name`` against ``baseline`` on the images that both certify.

    Attributes:
        images: number of shared images; all figures below are over these.
        acr_before, acr_after: of the baseline and of ``name``, in input units.
        interval: 95 % bootstrap interval of the difference in ACR, paired by image.
        hard_before, hard_after: shares with p_A < 1/2.
        hard_interval: 95 % bootstrap interval of their difference, paired by image.
        classes: by class, those first that the share of hard images rose most in.
        gain_from_certified: the part of the difference in ACR that comes from images that the baseline
            already certified correctly, in input units; the rest comes from those that it did not.
        gain_from_easy: the part from images at p_A >= 0.9 under the baseline.
        bins: by the baseline's p_A.
        worse: rows (of the baseline, of ``name``) of the images that lost most radius, worst first.
        worse_count: how many images lost radius at all.
        common_budget: ``(n, alpha)`` that both can be derived at from p_A; ``None`` if they agree anyway.
        common_acr: ACR of both there, on the shared images.
        grid: the radii that both can say, if one of them asked for some radii only: every radius above counts as
            the largest of these that it reaches. ``None`` if both know all radii.
        same_model: both are certificates of the same weights in the same arithmetic at the same sigma: what differs
            are draws and rules.
    """

    baseline: str
    name: str
    images: int
    acr_before: float
    acr_after: float
    interval: tuple[float, float]
    hard_before: float
    hard_after: float
    gain_from_certified: float
    gain_from_easy: float
    bins: tuple[Bin, ...]
    worse: tuple[NDArray[np.int64], NDArray[np.int64]]
    worse_count: int
    common_budget: tuple[int, float] | None = None
    common_acr: tuple[float, float] | None = None
    grid: tuple[float, ...] | None = None
    same_model: bool = False
    hard_interval: tuple[float, float] = (0.0, 0.0)
    classes: tuple[ClassChange, ...] = ()

    @property
    def gain(self) -> float:
        return self.acr_after - self.acr_before


def pair(a: Rows, b: Rows) -> Pairing:
    """Find the shared images: by index, or by name if both have names and the indices do not fit them."""
    if np.array_equal(a.idx, b.idx):
        at_a = at_b = np.arange(a.idx.size)
    else:
        _, at_a, at_b = np.intersect1d(a.idx, b.idx, assume_unique=True, return_indices=True)
    if a.image is not None and b.image is not None:
        same = at_a.size and pc.all(pc.equal(a.image.take(at_a), b.image.take(at_b))).as_py()
        if not same:
            place = pc.index_in(a.image, value_set=b.image).to_numpy(zero_copy_only=False)
            at_a = np.flatnonzero(~np.isnan(place.astype(float)))
            at_b = place[at_a].astype(np.int64)
    differ = np.flatnonzero(a.label[at_a] != b.label[at_b])
    first = int(a.idx[at_a[differ[0]]]) if differ.size else None
    return Pairing(at_a, at_b, int(differ.size), first)


def bin_of(p_a: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which of `BIN_NAMES` each p_A falls in; NaN (not certified to exceed 1/2) in the first."""
    return np.searchsorted(BIN_EDGES[1:], np.nan_to_num(p_a, nan=0.0), side="right")


def compare(baseline: Source, other: Source, pairing: Pairing, worst: int = 48) -> Comparison | None:
    """Return the paired comparison; ``None`` if no image or radius is shared or the sources disagree on labels."""
    if baseline.rows is None or other.rows is None or pairing.a.size == 0 or pairing.labels_differ:
        return None
    grid = common_grid(baseline, other)
    if grid == ():
        return None
    before, certified = _counted(baseline.rows, pairing.a, grid)
    after, certified_after = _counted(other.rows, pairing.b, grid)
    same = bool(baseline.model) and baseline.model == other.model and baseline.sigma == other.sigma
    same = same and (baseline.precision == other.precision or "" in (baseline.precision, other.precision))
    p_a = baseline.rows.p_a[pairing.a]
    p_after = other.rows.p_a[pairing.b]
    change = after - before
    budget = common_budget((baseline, other))
    images = change.size
    bins = bin_of(p_a)
    counts = np.bincount(bins, minlength=len(BIN_NAMES))
    gains = np.bincount(bins, weights=change, minlength=len(BIN_NAMES)) / images
    gained = np.bincount(bins, weights=~certified & certified_after, minlength=len(BIN_NAMES))
    lost = np.bincount(bins, weights=certified & ~certified_after, minlength=len(BIN_NAMES))
    worse = np.flatnonzero((change < 0) & (not same))
    shown = worse[np.argsort(change[worse], kind="stable")[:worst]]
    return Comparison(
        baseline=baseline.name,
        name=other.name,
        images=images,
        acr_before=float(before.mean()),
        acr_after=float(after.mean()),
        interval=mean_interval(change),
        hard_before=_hard(p_a),
        hard_after=_hard(p_after),
        gain_from_certified=float(change[certified].sum()) / images,
        gain_from_easy=float(change[np.nan_to_num(p_a) >= EASY].sum()) / images,
        bins=tuple(
            Bin(name, int(c), float(g), int(up), int(down))
            for name, c, g, up, down in zip(BIN_NAMES, counts, gains, gained, lost, strict=True)
        ),
        worse=(pairing.a[shown], pairing.b[shown]),
        worse_count=int(worse.size),
        common_budget=budget,
        common_acr=None if budget is None else (_acr_at(baseline, p_a, budget), _acr_at(other, p_after, budget)),
        grid=grid,
        same_model=same,
        hard_interval=mean_interval(is_hard(p_after) * 1.0 - is_hard(p_a)),
        classes=class_changes(
            baseline.rows.label[pairing.a],
            (is_hard(p_a), is_hard(p_after)),
            (baseline.rows.correct[pairing.a], other.rows.correct[pairing.b]),
            baseline.class_names or other.class_names,
        ),
    )


def common_grid(a: Source, b: Source) -> tuple[float, ...] | None:
    """Return the radii at which both say whether they certify, ascending; ``None`` if both say it everywhere."""
    grids = [s.grid for s in (a, b) if s.bound in GRIDS]
    if not grids:
        return None
    return tuple(r for r in grids[0] if all(any(abs(r - other) < SAME_RADIUS for other in g) for g in grids[1:]))


def _counted(
    rows: Rows, at: NDArray[np.int64], grid: tuple[float, ...] | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the counted radius, and whether there is one, of the rows ``at``: down to the grid if there is one."""
    held, correct = rows.counted_radius[at], rows.correct[at]
    if grid is None:
        return held, correct
    step = np.searchsorted(np.array(grid) - SAME_RADIUS, held, side="right")
    correct = correct & (step > 0)
    return np.where(correct, np.array((0.0, *grid))[step], 0.0), correct


def common_budget(sources: Sequence[Source]) -> tuple[int, float] | None:
    """Return the fewest draws and the largest alpha of all, at which each can be derived without extrapolation.

    ``None`` if all have the same budget. Sources that stopped early count for none: nothing can be derived of them.
    """
    derivable = [s for s in sources if s.derivable]
    if len({(s.n, s.alpha) for s in derivable}) < 2:
        return None
    return min(s.n for s in derivable), max(s.alpha for s in derivable)


def _acr_at(source: Source, p_a: NDArray[np.float64], budget: tuple[int, float]) -> float:
    shared = Distribution.of_images(p_a, source.distribution.known_from)
    return at_budget(shared, source.sigma, *budget).acr


def acr_by_bin(source: Source) -> list[float]:
    """Return what the images of each p_A bin (its own p_A) add to the ACR, in input units; sums to the ACR."""
    if source.rows is not None:
        weights = source.rows.counted_radius / source.rows.radius.size
        return np.bincount(bin_of(source.rows.p_a), weights=weights, minlength=len(BIN_NAMES)).tolist()
    # Only a curve: split the distribution and derive each part at the source's budget.
    whole, bins = source.distribution, bin_of(source.distribution.p)
    parts = (replace(whole, weight=np.where(bins == k, whole.weight, 0.0)) for k in range(len(BIN_NAMES)))
    return [at_budget(part, source.sigma, source.n, source.alpha).acr for part in parts]


def images_by_bin(source: Source) -> list[float]:
    """Return the share of all images in each p_A bin, in [0, 1]; those of unknown p_A count as below 1/2."""
    d = source.distribution
    weights = np.bincount(bin_of(d.p), weights=d.weight, minlength=len(BIN_NAMES))
    weights[0] += d.total - d.weight.sum()
    return np.clip(weights / d.total, 0, 1).tolist()


def _hard(p_a: NDArray[np.float64]) -> float:
    return float(is_hard(p_a).mean())
