"""What a search asks for: numbers of a validation, each with its direction. numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acr_ray.formats.metrics import Metric, MetricKey
from acr_ray.settings import UserError
from acr_ray.smoothing.bounds import max_radius
from acr_ray.tuning.validation_settings import ALLOWED

KINDS = (Metric.ACR, Metric.CERTIFIED_ACCURACY, Metric.HARD_SHARE, Metric.P_A_QUANTILE)
WITH_A_PLACE = (Metric.CERTIFIED_ACCURACY, Metric.P_A_QUANTILE)
BEST = "best"  # best@R,R,…: certified accuracy at each radius, with a recipe for each
QUANTILES = (0.1, 0.25, 0.5)  # of p_A, logged by every trial
RADII = (0.0, 0.5, 1.0, 1.5, 2.0)  # in units of σ, certified accuracies logged by every trial


@dataclass(frozen=True)
class Objective:
    """One number of a validation.

    Attributes:
        kind: one of `KINDS`.
        at: the radius of ``certified_accuracy`` (input units), the q in [0, 1] of ``p_a_quantile``; else unused.
    """

    kind: Metric
    at: float = 0.0

    @property
    def name(self) -> str:
        return MetricKey(Metric(self.kind), self.at if self.kind in WITH_A_PLACE else None).option

    @property
    def mode(self) -> str:
        return "min" if self.kind == Metric.HARD_SHARE else "max"

    @property
    def sign(self) -> int:
        """Larger ``sign * value`` is better."""
        return -1 if self.mode == "min" else 1

    @property
    def worst(self) -> float:
        """The value of a trial that could not be trained: of a classifier that is never right."""
        return 1.0 if self.kind == Metric.HARD_SHARE else 0.0


@dataclass(frozen=True)
class ValidationCounts:
    """What a validation drew.

    Attributes:
        right: int64 ``(K,)``, draws of each image that got its label.
        draws: int64 ``(K,)`` >= 1.
        radii: float64 ``(K,)``, radius that N draws certify or, if fewer were drawn, should certify; 0: none.
        noise_draws: how many there were, all images and workers together.
    """

    right: NDArray[np.int64]
    draws: NDArray[np.int64]
    radii: NDArray[np.float64]
    noise_draws: int


def parse_objectives(text: str, sigma: float, n: int, alpha: float) -> tuple[Objective, ...]:
    """One or more names with commas between; ``best@0.25,0.5`` is certified accuracy at each of its radii.

    Args:
        sigma, n, alpha: of the validation; a radius that it can never certify is refused.

    Raises:
        UserError: unknown, given twice, or out of range.
    """
    objectives = []
    for part, kind, marked, at, _ in _parts(text):
        needs = kind in WITH_A_PLACE
        if kind not in KINDS or bool(marked) != needs:
            raise UserError(f"--metric {part or '(nothing)'}: unknown; allowed: {ALLOWED}")
        try:
            objective = Objective(Metric(kind), float(at) if needs else 0.0)
        except ValueError:
            raise UserError(f"--metric {part}: {at} is not a number; allowed: {ALLOWED}") from None
        ceiling = max_radius(sigma, n, alpha)
        if kind == Metric.CERTIFIED_ACCURACY and not 0 <= objective.at <= ceiling:
            raise UserError(
                f"--metric {part}: allowed: a radius from 0 to {ceiling:.3f}, "
                f"the most that {n} draws at alpha = {alpha:g} can certify"
            )
        if kind == Metric.P_A_QUANTILE and not 0 <= objective.at <= 1:
            raise UserError(f"--metric {part}: allowed: q from 0 to 1")
        if objective in objectives:
            raise UserError(f"--metric {part}: given twice")
        objectives.append(objective)
    return tuple(objectives)


def best_objectives(text: str) -> tuple[Objective, ...]:
    """Return the objectives that a recipe each is left for: the radii of ``best@R,R,…``. Of text that was parsed."""
    return tuple(Objective(Metric.CERTIFIED_ACCURACY, float(at)) for *_, at, is_best in _parts(text) if is_best)


def _parts(text: str) -> list[tuple[str, str, str, str, bool]]:
    """Return each part as typed, its kind, its ``@`` if it has one, its place, and whether it belongs to a best@."""
    found, within = [], False
    for part in (p.strip() for p in text.split(",")):
        kind, marked, at = part.partition("@")
        if kind == BEST and marked:
            kind, within = Metric.CERTIFIED_ACCURACY, True
        elif within and not marked and _is_number(part):
            kind, marked, at = Metric.CERTIFIED_ACCURACY, "@", part
        else:
            within = False
        found.append((part, kind, marked, at, within))
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def logged(asked: tuple[Objective, ...], sigma: float, n: int, alpha: float) -> tuple[Objective, ...]:
    """Return what every trial logs: what was asked for, then all kinds."""
    ceiling = max_radius(sigma, n, alpha)
    fixed = [Objective(Metric.ACR), Objective(Metric.HARD_SHARE)]
    fixed += [Objective(Metric.CERTIFIED_ACCURACY, float(f"{r * sigma:.6g}")) for r in RADII if r * sigma <= ceiling]
    fixed += [Objective(Metric.P_A_QUANTILE, q) for q in QUANTILES]
    return tuple(dict.fromkeys((*asked, *fixed)))


def measure(counts: ValidationCounts, objectives: tuple[Objective, ...]) -> dict[str, float]:
    """Return the objectives by name. The label is the class that is certified, so a wrong answer has radius 0."""
    radii, p_a = counts.radii, counts.right / counts.draws
    values = {}
    for objective in objectives:
        if objective.kind == Metric.ACR:
            value = radii.mean()
        elif objective.kind == Metric.CERTIFIED_ACCURACY:
            value = ((radii > 0) & (radii >= objective.at)).mean()
        elif objective.kind == Metric.HARD_SHARE:
            value = (p_a < 0.5).mean()
        else:
            value = np.quantile(p_a, objective.at)
        values[objective.name] = float(value)
    return values


def failed(objectives: tuple[Objective, ...]) -> dict[str, float]:
    """Return what counts for a trial that could not be trained."""
    return {objective.name: objective.worst for objective in objectives}


def pareto_front(values: NDArray[np.float64], signs: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which rows no other row beats: none is at least as good in every column and better in one.

    Args:
        values: ``(K, D)``; rows with NaN are not on the front and beat nobody.
        signs: 1 for a column to maximise, -1 to minimise.
    """
    good = np.where(np.isnan(values).any(axis=1, keepdims=True), -math.inf, values * np.array(signs))
    as_good = np.all(good[None] >= good[:, None], axis=2)
    better = np.any(good[None] > good[:, None], axis=2)
    return ~np.any(as_good & better, axis=1) & np.all(np.isfinite(good), axis=1)
