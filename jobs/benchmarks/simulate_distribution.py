"""Draws for the distribution of p_A, simulated on the p_A's of real certificates.

An image's p is that of its label: of images whose selected class is known to be wrong, 1 - p of that class stands for
it, which is the most it can be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.forecast import play_together
from acr_ray.smoothing.distribution_rule import FROM, UPTO, DistributionRule
from acr_ray.smoothing.ecdf_band import grid
from jobs.benchmarks.figures import figure

BANDS = (0.01, 0.02)
N0, BLOCK = 100, 100


@dataclass
class MeasuredBand:
    """One band on one population; each list has one entry a repetition."""

    saved: list[float] = field(default_factory=list)  # N / mean evaluations, pilot draws included
    proved: list[float] = field(default_factory=list)  # error that the run may claim, points
    actual: list[float] = field(default_factory=list)  # largest error in fact, points


def measure_bands(
    p: NDArray[np.float64], n: int, alpha: float, repetitions: int, upto: float = UPTO
) -> dict[str, MeasuredBand]:
    """Whole runs of the rule `distribution`, for each of `BANDS`."""
    found = {}
    for band in BANDS:
        rule = DistributionRule(n, N0, BLOCK, alpha, band, upto)
        found[f"{band:g}"] = measured = MeasuredBand()
        for repetition in range(repetitions):
            draws, proved, actual = run_once(rule, p, np.random.default_rng(repetition))
            measured.saved.append(n / draws)
            measured.proved.append(100 * proved)
            measured.actual.append(100 * actual)
    return found


def run_once(rule: DistributionRule, p: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float, float]:
    """Return draws an image, pilot draws included, the error that is proved, and the largest error in fact."""
    counts, drawn, error = play_together(rule, N0, p, rng)
    x = grid(p.size)
    x = x[(x >= FROM) & (x <= rule.upto)]
    shares = [1 - np.searchsorted(np.sort(share), x, side="left") / p.size for share in (counts / drawn, p)]
    return N0 + float(drawn.mean()), error, float(np.abs(np.subtract(*shares)).max())


def table(found: dict[str, dict[str, MeasuredBand]]) -> str:
    lines = [f"{'--stopping distribution':34}{'--band':>8}{'saved':>9}{'proved':>9}{'in fact':>9}   (points)"]
    for name, bands in found.items():
        for band, m in bands.items():
            saved, proved, actual = (float(np.median(v)) for v in (m.saved, m.proved, m.actual))
            lines.append(f"  {name[:32]:32}{band:>8}{saved:8.1f}x{proved:9.2f}{actual:9.2f}")
    return "\n".join(lines)


def as_json(found: dict[str, dict[str, MeasuredBand]]) -> dict[str, Any]:
    return {
        name: {
            band: {
                "evaluations_saved": figure(m.saved),
                "points_proved": figure(m.proved),
                "points_actual": figure(m.actual),
            }
            for band, m in bands.items()
        }
        for name, bands in found.items()
    }
