"""What makes a comparison unfair. A warning is a sentence that names the source and the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from acr_ray.reporting.pairing import Pairing, pair
from acr_ray.reporting.source import Source
from acr_ray.smoothing.bounds import max_radius, round_down

#: What must agree between sources, as shown and as the attribute of `Source`.
SETTINGS = (("sigma", "sigma"), ("N", "n"), ("alpha", "alpha"))
#: Budgets that papers of the field use; tried to explain radii above the ceiling.
_USUAL_N = (10_000, 100_000, 1_000_000)
_USUAL_ALPHA = (0.001, 0.01, 0.05)

Pairings = Mapping[tuple[int, int], Pairing]


def pair_all(sources: Sequence[Source]) -> dict[tuple[int, int], Pairing]:
    """How the rows of every two sources that have rows correspond; keys ``(i, j)`` with i < j."""
    return {
        (i, j): pair(a.rows, b.rows)
        for j, b in enumerate(sources)
        for i, a in enumerate(sources[:j])
        if a.rows is not None and b.rows is not None
    }


def warnings_of(sources: Sequence[Source], pairings: Pairings) -> list[list[str]]:
    """For each source what is wrong with it, and with comparing it to the others; empty lists where nothing is."""
    return [_alone(s) + _settings(s, sources) + _images(i, sources, pairings) for i, s in enumerate(sources)]


def stored_above_ceiling(source: Source) -> int:
    """How many stored radii exceed what ``n`` draws at ``alpha`` can certify, by more than their rounding."""
    if source.rows is None:
        return 0
    return int((source.rows.radius > source.ceiling + _rounding(source.ceiling)).sum())


def _rounding(radius: float) -> float:
    """Half a unit of the third significant digit: what the field's files round radii to."""
    return 0.5 * 10.0 ** (np.floor(np.log10(radius)) - 2) * (1 + 1e-9) if radius > 0 else 0.0


def _alone(source: Source) -> list[str]:
    found = []
    if source.incomplete:
        found.append(f"incomplete: {source.images} of {source.planned} images; its numbers are not the full run's")
    above = stored_above_ceiling(source)
    if above:
        largest = float(source.rows.radius.max())
        found.append(
            f"{above} stored radii exceed {round_down(source.ceiling, 4)}, the most that N = {source.n} and"
            f" alpha = {source.alpha:g} can certify (largest: {largest:g}){_explained(source, largest)}"
        )
    return found


def _explained(source: Source, largest: float) -> str:
    for n in (source.n, *_USUAL_N):
        for alpha in (source.alpha, *_USUAL_ALPHA):
            if abs(max_radius(source.sigma, n, alpha) - largest) <= _rounding(largest):
                return f"; N = {n} with alpha = {alpha:g} would explain it"
    return ""


def _settings(source: Source, sources: Sequence[Source]) -> list[str]:
    found = []
    for shown, attribute in SETTINGS:
        mine = getattr(source, attribute)
        others = {s.name: getattr(s, attribute) for s in sources if getattr(s, attribute) != mine}
        if others:
            listed = ", ".join(f"{value:g} in {name}" for name, value in others.items())
            found.append(f"{shown} differs: {mine:g} here, {listed}")
    return found


def _images(i: int, sources: Sequence[Source], pairings: Pairings) -> list[str]:
    found = []
    for j, other in enumerate(sources):
        pairing = pairings.get((min(i, j), max(i, j)))
        if i == j or pairing is None:
            continue
        shared = pairing.a.size
        if shared < max(sources[i].images, other.images):
            found.append(
                f"other images than {other.name}: {sources[i].images} here, {other.images} there, {shared} in both"
            )
        if pairing.labels_differ:
            found.append(
                f"labels disagree with {other.name} on {pairing.labels_differ} of {shared} shared indices (first:"
                f" idx {pairing.first_difference}): the index schemes differ, so images are not compared one by one"
            )
    return found
