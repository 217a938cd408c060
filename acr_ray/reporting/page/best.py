"""The page's choice of a source for each radius: its table, and the curves behind its chart."""

from __future__ import annotations

from typing import Any

from acr_ray.reporting.best import BestAt
from acr_ray.reporting.best_tables import NAME, best_title, interval_text, optimism_text
from acr_ray.reporting.cell_text import lower, percent_text, radius_text
from acr_ray.reporting.page.data import tenths
from acr_ray.reporting.report import Report


def best_sections(report: Report) -> dict[str, Any]:
    """Return what the template of the choice asks for: ``None`` if it was not asked for."""
    best = report.best
    if best is None:
        return {"best": None}
    return {"best": {"title": best_title(best).removesuffix(":") + ".", "rows": [_line(at) for at in best.at]}}


def _line(at: BestAt) -> dict[str, Any]:
    return {
        "radius": {"exact": repr(at.radius), "shown": radius_text(at.radius)},
        "cross": {"exact": repr(at.cross_fitted), "shown": lower(percent_text(at.cross_fitted), at.is_lower)},
        "interval": interval_text(at),
        "naive": {"exact": repr(at.naive), "shown": lower(percent_text(at.naive), at.is_lower)},
        "naive_source": at.naive_source,
        "optimism": {"exact": repr(at.optimism), "shown": optimism_text(at).replace("-", "−")},
        "halves": [
            {"name": name, "exact": repr(share), "shown": percent_text(share)}
            for name, share in zip(at.chosen, at.held_out, strict=True)
        ],
    }


def best_data(report: Report) -> dict[str, Any] | None:
    """Return the chart's curves in tenths of a percent; those of sources that are chosen nowhere have no name."""
    best = report.best
    if best is None:
        return None
    place = {source.name: k for k, source in enumerate(report.sources)}
    # Those in colour are drawn last, above the others.
    order = sorted(range(len(best.names)), key=lambda s: best.names[s] in best.winners)
    places = [place[best.names[s]] if best.names[s] in best.winners else -1 for s in order]
    curves = [{"k": k, "y": [tenths(v) for v in best.accuracy[s]]} for k, s in zip(places, order, strict=True)]
    x = [round(float(r), 6) for r in best.curve_radii]
    return {"x": x, "name": NAME, "best": [tenths(v) for v in best.curve], "curves": curves}
