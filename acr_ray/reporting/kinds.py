"""The same counts under both kinds of certificates, and whether the order of methods depends on the kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acr_ray.reporting.intervals import mean_interval
from acr_ray.reporting.pairing import Pairing
from acr_ray.reporting.source import Source
from acr_ray.smoothing.bounds import lower_bound, radius, round_down
from acr_ray.smoothing.rules import ONE_CLASS_KIND, PLAIN, RANDOMIZED, TWO_CLASS, TWO_CLASS_KIND
from acr_ray.smoothing.two_class import two_class_p_lower

KINDS = (ONE_CLASS_KIND, TWO_CLASS_KIND)


@dataclass(frozen=True)
class KindNumbers:
    """A source's numbers under one kind of certificate; shares in [0, 1], radii in input units, nothing rounded.

    Attributes:
        kind: ``one-class`` or ``two-class``.
        own: whether the run itself certified this kind; else it is derived from its counts.
        acr_interval: 95 % bootstrap interval over images.
        certified_accuracy: at the report's radii.
        abstained: share of images without a certified class.
    """

    kind: str
    own: bool
    acr: float
    acr_interval: tuple[float, float]
    certified_accuracy: tuple[float, ...]
    abstained: float


@dataclass(frozen=True)
class OrderTurned:
    """Two methods whose order by ACR is not the same under both kinds of certificates.

    Attributes:
        one, other: names; ``one`` is ahead under one-class certificates.
        one_class, two_class: the ACRs of both, in that order, on the images that both certify.
        images: how many those are.
        shown: for each kind whether that difference is more than these images leave to chance (95 %, paired).
    """

    one: str
    other: str
    one_class: tuple[float, float]
    two_class: tuple[float, float]
    images: int
    shown: tuple[bool, bool]

    def __str__(self) -> str:
        def pair(values: tuple[float, float], shown: bool) -> str:
            low, high = sorted(values)
            doubt = "" if shown else f", a difference that {self.images} images do not show"
            return f"({round_down(low, 4)} < {round_down(high, 4)}{doubt})"

        return (
            f"By ACR {self.one} is ahead of {self.other} with one-class certificates"
            f" {pair(self.one_class, self.shown[0])}, and behind with two-class certificates"
            f" {pair(self.two_class, self.shown[1])}: on the same draws the order turns round with the kind of"
            " certificate."
        )


def claimed_radii(source: Source, kind: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Return the radius certified for each image's selected class, 0 if none is, and whether one is.

    Args:
        source: with the counts of its draws; the other kind can be derived of a fixed number of draws only.
        kind: ``one-class`` or ``two-class``.

    Returns:
        float64 and bool, one entry an image; ``None`` if the source cannot say it.
    """
    rows = source.rows
    if rows is None:
        return None
    if source.certificate == kind:
        return rows.radius, rows.predicted >= 0
    if rows.count_top is None or rows.draws is None:
        return None
    if source.bound in (PLAIN, RANDOMIZED) and rows.count_second is not None:
        p = two_class_p_lower(rows.count_top, rows.count_second, rows.draws, source.bound_alpha)
    elif source.bound == TWO_CLASS:
        p = lower_bound(rows.count_top, rows.draws, source.bound_alpha)
    else:
        return None
    claimed = p > 0.5 if rows.stopped is None else (p > 0.5) & ~rows.stopped
    return np.where(claimed, radius(p, source.sigma), 0.0), claimed


def counted_radii(source: Source, kind: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Return the radii of a kind that count, 0 if wrong or abstained, and which images are certified and right."""
    found, rows = claimed_radii(source, kind), source.rows
    if found is None or rows is None:
        return None
    chosen = rows.predicted if rows.selected is None else rows.selected
    right = found[1] & (chosen == rows.label)
    return np.where(right, found[0], 0.0), right


def both_kinds(source: Source, radii: Sequence[float]) -> tuple[KindNumbers, ...]:
    """Return a source's numbers under each kind that it can say, one-class first."""
    found = []
    for kind in KINDS:
        claimed, counted = claimed_radii(source, kind), counted_radii(source, kind)
        if claimed is None or counted is None:
            continue
        held, right = counted
        found.append(
            KindNumbers(
                kind=kind,
                own=kind == source.certificate,
                acr=float(held.mean()),
                acr_interval=mean_interval(held),
                certified_accuracy=tuple(float((right & (held >= r)).mean()) for r in radii),
                abstained=float((~claimed[1]).mean()),
            )
        )
    return tuple(found)


def order_turns(sources: Sequence[Source], pairings: dict[tuple[int, int], Pairing]) -> tuple[OrderTurned, ...]:
    """Return all pairs at one sigma whose order by ACR depends on the kind of certificate."""
    held = [[counted_radii(source, kind) for kind in KINDS] for source in sources]
    turned = []
    for (i, j), pairing in pairings.items():
        a, b = sources[i], sources[j]
        fit = a.sigma == b.sigma and a.n == b.n and a.alpha == b.alpha and not pairing.labels_differ and pairing.a.size
        if not fit or any(one is None for one in (*held[i], *held[j])):
            continue
        acr, shown = [], []
        for first, second in zip(held[i], held[j], strict=True):
            assert first is not None and second is not None
            before, after = first[0][pairing.a], second[0][pairing.b]
            acr.append((float(before.mean()), float(after.mean())))
            low, high = mean_interval(after - before)
            shown.append(not low <= 0.0 <= high)
        if (acr[0][0] - acr[0][1]) * (acr[1][0] - acr[1][1]) < 0:
            ahead = acr[0][0] > acr[0][1]
            one, other = (a.name, b.name) if ahead else (b.name, a.name)
            one_class, two_class = acr if ahead else [(after, before) for before, after in acr]
            images = int(pairing.a.size)
            turned.append(OrderTurned(one, other, one_class, two_class, images, (shown[0], shown[1])))
    return tuple(turned)
