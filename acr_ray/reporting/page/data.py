"""The numbers behind the page's controls, all computed here: the page looks them up and computes none.

Shares are sent as tenths of a percent and ACR as text, both already rounded as the tables round them, so
that what the page shows after a click is what ``summary.json`` would give.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from acr_ray.reporting.budget import at_budget, radii_at_budget, sensitivity
from acr_ray.reporting.cell_text import acr_text, lower, percent_text, radius_text
from acr_ray.reporting.intervals import ecdf_band, mean_intervals
from acr_ray.reporting.metrics import Constant, acr, certified_accuracy
from acr_ray.reporting.report import Report, Row
from acr_ray.reporting.source import Source
from acr_ray.smoothing.bounds import max_radius

BUDGETS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
ALPHAS = (0.05, 0.01, 0.001, 0.0001)
#: The key of the budget each source was certified with.
OWN = "own"


def page_data(report: Report) -> dict[str, Any]:
    """Everything that the page's script needs, as JSON types."""
    ns = sorted({*BUDGETS, *(s.n for s in report.sources)})
    alphas = sorted({*ALPHAS, *(s.alpha for s in report.sources)}, reverse=True)
    grid = radius_grid(report, max(ns), max(alphas))
    return {
        "names": [row.shown_name for row in report.all_rows],
        "kinds": [row.kind for row in report.all_rows],
        "chosen": [grid.index(r) for r in report.radii],
        "radii": grid,
        "radius_texts": [radius_text(r) for r in grid],
        "ns": ns,
        "alphas": [f"{a:g}" for a in alphas],
        "own": [{"n": s.n, "alpha": f"{s.alpha:g}", "ceiling": s.ceiling} for s in report.sources],
        "ecdf": _ecdf(report),
        "budgets": [_budgets(s, row, grid, ns, alphas) for s, row in zip(report.sources, report.rows, strict=True)]
        + _constant(report, grid, ns, alphas),
        "curves": [s.between is not None for s in report.sources],
        "lower": [[k for k, r in enumerate(grid) if s.is_lower_at(r)] for s in report.sources],
        "sensitivity": _sensitivity(report),
    }


def tenths(share: float) -> int:
    """Return a share in tenths of a percent, rounded exactly as `percent_text` prints it."""
    return round(float(percent_text(share)) * 10)


def radius_grid(report: Report, n: int, alpha: float) -> list[float]:
    """The radii that can be chosen on the page: the report's own, and an even grid up to the largest possible."""
    ceiling = max(max_radius(s.sigma, n, alpha) for s in report.sources)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.25) if ceiling / s <= 280), ceiling / 200)
    even = [round(step * k, 6) for k in range(math.ceil(ceiling / step) + 1)]
    return sorted({*even, *report.radii})


def _ecdf(report: Report) -> dict[str, Any]:
    """Return every curve at the same points, dense near 1; exact at each."""
    start = min(s.distribution.known_from for s in report.sources)
    even = np.linspace(start, 1.0, round((1 - start) / 0.0025) + 1)
    x = np.unique(np.round(np.concatenate([even, 1 - np.logspace(-2, -5, 61)]), 6))
    curves = []
    for source in report.sources:
        band = ecdf_band(source, x)
        curve = {"y": _tenths_or_none(source.distribution.at_least(x))}
        if band is not None:
            curve |= {"low": _tenths_or_none(band[0]), "high": _tenths_or_none(band[1])}
        curves.append(curve)
    return {"x": x.tolist(), "curves": curves}


def _tenths_or_none(shares: np.ndarray) -> list[int | None]:
    return [None if np.isnan(v) else tenths(v) for v in shares]


def _budgets(source: Source, row: Row, grid: list[float], ns: list[int], alphas: list[float]) -> dict[str, Any]:
    """Its own budget, and all others if they can be derived; an interval wherever there are images."""
    mark = {"is_lower": source.acr_is_lower, "is_estimate": source.between is not None}
    budgets = {OWN: _entry(acr(source), certified_accuracy(source, grid), row.acr_interval, **mark)}
    if not source.derivable:
        return budgets
    pairs = [(n, alpha) for n in ns for alpha in alphas]
    intervals: list[tuple[float, float] | None] = [None] * len(pairs)
    if source.rows is not None:
        p_a, sigma = source.rows.p_a, source.sigma
        intervals = list(mean_intervals((radii_at_budget(p_a, sigma, n, alpha) for n, alpha in pairs), len(p_a)))
    for (n, alpha), interval in zip(pairs, intervals, strict=True):
        at = at_budget(source.distribution, source.sigma, n, alpha)
        budgets[f"{n}/{alpha:g}"] = _entry(at.acr, at.certified_accuracy(grid), interval, **mark)
    return budgets


def _constant(report: Report, grid: list[float], ns: list[int], alphas: list[float]) -> list[dict[str, Any]]:
    if report.constant is None or report.constant_share is None:
        return []
    row = report.constant
    share, images = report.constant_share, row.images
    assert images is not None  # a constant classifier is one of a source with images
    own = Constant(share, row.sigma, row.n, row.alpha, images)
    budgets = {OWN: _entry(row.acr, own.certified_accuracy(grid), is_lower=row.acr_is_lower)}
    for n in ns:
        for alpha in alphas:
            at = Constant(share, row.sigma, n, alpha, images)
            budgets[f"{n}/{alpha:g}"] = _entry(at.acr, at.certified_accuracy(grid))
    return [budgets]


def _entry(
    acr_value: float, shares: list[float], interval: tuple[float, float] | None = None, **mark: bool
) -> dict[str, Any]:
    """``v`` is drawn, ``t`` is shown with the interval ``i``, ``c`` is the curve without its trailing zeros."""
    held = [tenths(s) for s in shares]
    while held and held[-1] == 0:
        held.pop()
    entry = {"v": round(acr_value, 6), "t": lower(acr_text(acr_value), **({"is_lower": False} | mark)), "c": held}
    return entry if interval is None else entry | {"i": interval_text(interval)}


def interval_text(interval: tuple[float, float]) -> str:
    """Return a 95 % interval of ACR as shown beside it."""
    return f"[{', '.join(map(acr_text, interval))}]"


def _sensitivity(report: Report) -> dict[str, Any]:
    p = 1 - np.logspace(np.log10(0.5), -4, 120)
    sigmas = sorted({s.sigma for s in report.sources})
    values = [[float(f"{v:.4g}") for v in sensitivity(p, sigma)] for sigma in sigmas]
    return {"p": [round(v, 6) for v in p.tolist()], "sigmas": [f"{s:g}" for s in sigmas], "values": values}
