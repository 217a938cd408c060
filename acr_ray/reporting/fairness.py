"""What makes a comparison unfair. A warning is a sentence that names the source and the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acr_ray.reporting.pairing import Pairing, common_grid, pair
from acr_ray.reporting.source import GRIDS, Source
from acr_ray.smoothing.bounds import max_radius, round_down

#: What must agree between sources, as shown and as the attribute of `Source`.
SETTINGS = (("sigma", "sigma"), ("N", "n"), ("alpha", "alpha"), ("certificate", "certificate"), ("bound", "bound"))
#: Budgets that papers of the field use; tried to explain radii above the ceiling.
_USUAL_N = (10_000, 100_000, 1_000_000)
_USUAL_ALPHA = (0.001, 0.01, 0.05)

Pairings = Mapping[tuple[int, int], Pairing]


def pair_all(sources: Sequence[Source]) -> dict[tuple[int, int], Pairing]:
    """Return how the rows of every two sources that have rows correspond; keys ``(i, j)`` with i < j."""
    return {
        (i, j): pair(a.rows, b.rows)
        for j, b in enumerate(sources)
        for i, a in enumerate(sources[:j])
        if a.rows is not None and b.rows is not None
    }


@dataclass(frozen=True)
class Warnings:
    """What makes numbers misleading.

    Attributes:
        own: for each source what is wrong with it alone.
        between: what is wrong with comparing some of the sources, and which (positions in the list).
    """

    own: tuple[tuple[str, ...], ...]
    between: tuple[tuple[str, frozenset[int]], ...]

    def of(self, position: int) -> tuple[str, ...]:
        """Return all that concerns one source."""
        return self.own[position] + tuple(text for text, whom in self.between if position in whom)


def find_warnings(sources: Sequence[Source], pairings: Pairings) -> Warnings:
    """Look for everything that a reader must know before comparing; nothing is found if all is well."""
    between = (*_settings(sources), *_precisions(sources), *_images(sources, pairings))
    return Warnings(tuple(_alone(s) for s in sources), between)


def stored_above_ceiling(source: Source) -> int:
    """Return how many stored radii exceed what ``n`` draws at ``alpha`` can certify, by more than their rounding."""
    if source.rows is None:
        return 0
    return int((source.rows.radius > source.ceiling + _rounding(source.ceiling)).sum())


def _rounding(radius: float) -> float:
    """Half a unit of the third significant digit: what the field's files round radii to."""
    return 0.5 * 10.0 ** (np.floor(np.log10(radius)) - 2) * (1 + 1e-9) if radius > 0 else 0.0


def _alone(source: Source) -> tuple[str, ...]:
    warnings = []
    if source.incomplete:
        warnings.append(f"{source.incomplete} images; its numbers are not the full run's")
    above = stored_above_ceiling(source)
    if above and source.rows is not None:
        largest = float(source.rows.radius.max())
        warnings.append(
            f"{above} stored radii exceed {round_down(source.ceiling, 4)}, the most that N = {source.n} and"
            f" alpha = {source.alpha:g} can certify (largest: {largest:g}){_explained(source, largest)}"
        )
    return tuple(warnings)


def _explained(source: Source, largest: float) -> str:
    for n in (source.n, *_USUAL_N):
        for alpha in (source.alpha, *_USUAL_ALPHA):
            if abs(max_radius(source.sigma, n, alpha) - largest) <= _rounding(largest):
                return f"; N = {n} with alpha = {alpha:g} would explain it"
    return ""


def _settings(sources: Sequence[Source]) -> list[tuple[str, frozenset[int]]]:
    warnings = []
    for shown, attribute in SETTINGS:
        by_value: dict[float | str, list[str]] = {}
        for source in sources:
            by_value.setdefault(getattr(source, attribute), []).append(source.name)
        if len(by_value) > 1:
            listed = "; ".join(f"{_shown(value)} in {', '.join(names)}" for value, names in by_value.items())
            lower = "; ACR of radii stopping is a lower value, compare certified accuracy at its radii"
            explanation = lower if attribute == "bound" and (set(GRIDS) & set(by_value)) else ""
            warnings.append((f"{shown} differs: {listed}{explanation}", frozenset(range(len(sources)))))
    return warnings


def _precisions(sources: Sequence[Source]) -> list[tuple[str, frozenset[int]]]:
    """Weights in int8 and in floating point, or in two int8 networks, are several classifiers."""
    warnings = []
    for model in sorted({s.model for s in sources if s.model}):
        alike = {k: s for k, s in enumerate(sources) if s.model == model and s.precision}
        if len({s.precision for s in alike.values()}) > 1 and any(_is_int8(s) for s in alike.values()):
            listed = "; ".join(f"{s.precision} in {s.name}" for s in alike.values())
            text = f"the same weights as several classifiers, whose counts say nothing of each other: {listed}"
            warnings.append((text, frozenset(alike)))
    return warnings


def _is_int8(source: Source) -> bool:
    return source.precision.startswith("int8")


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"


def _images(sources: Sequence[Source], pairings: Pairings) -> list[tuple[str, frozenset[int]]]:
    warnings = []
    for (i, j), pairing in pairings.items():
        a, b, shared = sources[i], sources[j], pairing.a.size
        if shared < max(a.images or 0, b.images or 0):
            text = f"different images: {a.images} in {a.name}, {b.images} in {b.name}, {shared} in both"
            warnings.append((text, frozenset({i, j})))
        if common_grid(a, b) == ():
            warnings.append((f"{a.name} and {b.name} share no radius that both can say: not paired", frozenset({i, j})))
        if pairing.labels_differ:
            text = (
                f"labels disagree between {a.name} and {b.name} on {pairing.labels_differ} of {shared} shared indices"
                f" (first: idx {pairing.first_difference}): index schemes differ, so images are not paired"
            )
            warnings.append((text, frozenset({i, j})))
    return warnings
