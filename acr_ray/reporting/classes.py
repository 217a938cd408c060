"""What certificates say class by class, and which classes a method gives up. An average over all images hides both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from acr_ray.reporting.source import Source

#: Of p_A, for each class.
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
#: Chance that any class counts as given up by accident, over all classes of a comparison.
BY_ACCIDENT = 0.05


@dataclass(frozen=True)
class ClassNumbers:
    """The images of one class under one source; shares in [0, 1], nothing rounded.

    Attributes:
        label: the class; ``name`` is "" if it is not known, or says no more than the number.
        images: how many, at least 1.
        hard_share: share with p_A < 1/2, as `acr_ray.reporting.metrics.hard_share` has it over all images.
        p_a: p_A at `QUANTILES`; NaN where the source only says that it is not certified to exceed 1/2.
        p_a_mean: mean of p_A; ``None`` if the source does not know it for all images.
        accuracy_at_0: certified accuracy at radius 0; ``is_lower`` says that it is a lower value, of a run that asked
            for other radii only.
        certified_accuracy: at the report's radii.
    """

    label: int
    name: str
    images: int
    hard_share: float
    p_a: tuple[float, ...]
    p_a_mean: float | None
    accuracy_at_0: float
    certified_accuracy: tuple[float, ...]
    is_lower: bool = False

    @property
    def shown(self) -> str:
        """The class as tables show it: ``8``, or ``8 (ship)``."""
        return f"{self.label} ({self.name})" if self.name else str(self.label)


@dataclass(frozen=True)
class ClassChange:
    """The shared images of one class under two sources; shares in [0, 1].

    Attributes:
        images: how many.
        hard_before, hard_after: shares with p_A < 1/2 under the baseline, and now.
        accuracy_before, accuracy_after: certified accuracy at radius 0.
        growth_share: the part of the growth in hard images that falls on this class: of all images by which the
            classes grew that have more hard ones than before.
        given_up: most of its images are hard now and were not before, by more than chance.
    """

    label: int
    images: int
    hard_before: float
    hard_after: float
    accuracy_before: float = 0.0
    accuracy_after: float = 0.0
    growth_share: float = 0.0
    given_up: bool = False
    name: str = ""

    @property
    def shown(self) -> str:
        return f"{self.label} ({self.name})" if self.name else str(self.label)


def class_name(names: Sequence[str], label: int) -> str:
    """Return a class's name; "" if it is not known, or is the number itself (digits)."""
    known = names[label] if 0 <= label < len(names) else ""
    return "" if known == str(label) else known


def by_class(source: Source, radii: Sequence[float], names: Sequence[str] = ()) -> tuple[ClassNumbers, ...]:
    """Return a source's numbers for each class that has images, by label; empty if the source holds no images.

    Args:
        radii: of certified accuracy, >= 0, in input units.
        names: of the classes, by label; the source's own come first.
    """
    rows = source.rows
    if rows is None:
        return ()
    labels, at, images = np.unique(rows.label, return_inverse=True, return_counts=True)
    correct = rows.correct

    def share(of: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(at, weights=of, minlength=labels.size) / images

    hard, at_0 = share(is_hard(rows.p_a)), share(correct)
    accuracy = np.array([share(correct & (rows.radius >= r)) for r in radii]).reshape(len(radii), labels.size)
    quantiles, means = _p_a_of(rows.p_a, at, images)
    names = source.class_names or names
    return tuple(
        ClassNumbers(
            label=int(label),
            name=class_name(names, int(label)),
            images=int(images[k]),
            hard_share=float(hard[k]),
            p_a=tuple(quantiles[k].tolist()),
            p_a_mean=None if np.isnan(means[k]) else float(means[k]),
            accuracy_at_0=float(at_0[k]),
            certified_accuracy=tuple(accuracy[:, k].tolist()),
            is_lower=source.is_lower_at(0.0),
        )
        for k, label in enumerate(labels)
    )


def _p_a_of(
    p_a: NDArray[np.float64], at: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the quantiles of p_A (classes, `QUANTILES`) and its mean (classes,).

    A quantile is the smallest p_A that at least this share of the class's images does not exceed. What is unknown
    (NaN) lies below 1/2, so it comes first, and a quantile among the unknown is NaN, too.
    """
    order = np.lexsort((np.nan_to_num(p_a, nan=-1.0), at))
    held, ends = p_a[order], np.cumsum(images)
    rank = np.maximum(np.ceil(np.outer(images, QUANTILES) - 1e-9).astype(np.int64), 1)
    return held[(ends - images)[:, None] + rank - 1], np.bincount(at, weights=p_a, minlength=images.size) / images


def worst_class(classes: Sequence[ClassNumbers]) -> ClassNumbers | None:
    """Return the class with the lowest certified accuracy at radius 0, of equal ones that with most hard images."""
    return min(classes, key=lambda c: (c.accuracy_at_0, -c.hard_share, c.label), default=None)


def worst_first(every: Mapping[str, Sequence[ClassNumbers]]) -> list[int]:
    """Return all labels, those first whose lowest certified accuracy at radius 0 over the sources is lowest."""
    rank: dict[int, tuple[float, float]] = {}
    for classes in every.values():
        for c in classes:
            rank[c.label] = min(rank.get(c.label, (1.0, 0.0)), (c.accuracy_at_0, -c.hard_share))
    return sorted(rank, key=lambda label: (rank[label], label))


def class_changes(
    label: NDArray[np.int64],
    hard: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    correct: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    names: Sequence[str] = (),
) -> tuple[ClassChange, ...]:
    """Return what changed in each class, those first that the share of hard images rose most in.

    Args:
        label: true class of each shared image.
        hard, correct: before and after, whether p_A < 1/2, and whether it is certified and right; one entry an image.
        names: of the classes, by label.
    """
    classes, at, images = np.unique(label, return_inverse=True, return_counts=True)

    def count(of: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(at[of], minlength=classes.size)

    before, after = count(hard[0]), count(hard[1])
    growth = np.maximum(after - before, 0)
    newly, no_longer = count(~hard[0] & hard[1]), count(hard[0] & ~hard[1])
    # Sign test on the images that changed sides (McNemar, exact), shared out over the classes.
    chance = stats.binom.sf(newly - 1, newly + no_longer, 0.5)
    given_up = (after > images / 2) & (before <= images / 2) & (chance <= BY_ACCIDENT / classes.size)
    right = [count(one) / images for one in correct]
    share = growth / max(int(growth.sum()), 1)
    return tuple(
        ClassChange(
            label=int(classes[k]),
            images=int(images[k]),
            hard_before=float(before[k] / images[k]),
            hard_after=float(after[k] / images[k]),
            accuracy_before=float(right[0][k]),
            accuracy_after=float(right[1][k]),
            growth_share=float(share[k]),
            given_up=bool(given_up[k]),
            name=class_name(names, int(classes[k])),
        )
        for k in np.argsort((before - after) / images, kind="stable")
    )


def is_hard(p_a: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which images have p_A < 1/2; what is not known (NaN) is not certified to exceed it."""
    return np.nan_to_num(p_a, nan=0.0) < 0.5
