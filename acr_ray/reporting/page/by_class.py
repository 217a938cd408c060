"""The page's classes: a small picture of p_A for each, all sources in it, and the numbers as a table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from acr_ray.reporting.cell_text import lower, percent_text, radius_text
from acr_ray.reporting.class_tables import order_of_classes, worst_told
from acr_ray.reporting.classes import ClassNumbers
from acr_ray.reporting.distribution import Distribution
from acr_ray.reporting.page.sections import named, row_colour
from acr_ray.reporting.report import Report
from acr_ray.smoothing.bounds import round_down

#: Classes on the page, the worst first; all are in classes.csv and summary.json.
MOST_DRAWN = 40
#: Points of a curve; exact at each.
POINTS = 41
#: Size of a picture in its own units, with room for a line's width.
WIDTH, HEIGHT, MARGIN = 120.0, 72.0, 2.0


def by_class_sections(report: Report) -> dict[str, Any]:
    """Return what the template of the classes asks for; without classes to tell apart its list is empty."""
    order = order_of_classes(report)
    drawn = order[:MOST_DRAWN] if len(order) > 1 else []
    held = [{c.label: c for c in row.classes} for row in report.rows]
    left_out = len(order) - len(drawn) if drawn else 0
    start = min(s.distribution.known_from for s in report.sources)
    return {
        "classes": {
            "pictures": [_picture(report, held, label, start) for label in drawn],
            "start": f"{start:g}",
            "radii": [{"exact": repr(r), "shown": radius_text(r)} for r in report.radii],
            "rows": [_line(report, k, of[label]) for label in drawn for k, of in enumerate(held) if label in of],
            "sources": [
                {"named": named(report, r.name), "colour": row_colour(k, r)} for k, r in enumerate(report.rows)
            ],
            "left_out": left_out,
            "worst": worst_told(report),
        }
    }


def _picture(report: Report, held: list[dict[int, ClassNumbers]], label: int, start: float) -> dict[str, Any]:
    """Return one class's curves as paths, and in words what they show."""
    curves, hard, points = [], [], np.round(np.linspace(start, 1.0, POINTS), 4)
    for k, (source, row) in enumerate(zip(report.sources, report.rows, strict=True)):
        rows = source.rows
        if rows is None or label not in held[k]:
            continue
        share = Distribution.of_images(rows.p_a[rows.label == label], source.distribution.known_from).at_least(points)
        known = [((x - start) / (1 - start), y) for x, y in zip(points, share, strict=True) if not math.isnan(y)]
        curves.append({"path": _path(known), "colour": row_colour(k, row), "dash": dash(k)})
        hard.append(f"{row.shown_name} {percent_text(held[k][label].hard_share)} %")
    shown = next(of[label].shown for of in held if label in of)
    return {"label": label, "shown": shown, "curves": curves, "told": f"Class {shown}, hard images: {', '.join(hard)}"}


def _path(points: list[tuple[float, float]]) -> str:
    def at(x: float, y: float) -> str:
        across, up = MARGIN + x * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - y * (HEIGHT - 2 * MARGIN)
        return f"{across:.1f} {up:.1f}"

    return "M" + "L".join(at(x, y) for x, y in points)


def dash(k: int) -> str:
    """Return the dashes of a source's curve, as the page's script has them."""
    return ("none", "8 3", "3 3", "9 3 2 3")[k // 8 % 4]


def _line(report: Report, k: int, c: ClassNumbers) -> dict[str, Any]:
    source, row = report.sources[k], report.rows[k]
    return {
        "label": c.label,
        "shown": c.shown,
        "named": named(report, row.name),
        "colour": row_colour(k, row),
        "images": c.images,
        "hard": {"exact": repr(c.hard_share), "shown": percent_text(c.hard_share)},
        "median": _p_a(c.p_a[2]),
        "tenth": _p_a(c.p_a[0]),
        "at_0": {"exact": repr(c.accuracy_at_0), "shown": lower(percent_text(c.accuracy_at_0), c.is_lower)},
        "accuracy": [
            {"radius": repr(r), "exact": repr(share), "shown": lower(percent_text(share), source.is_lower_at(r))}
            for r, share in zip(report.radii, c.certified_accuracy, strict=True)
            if r > 0
        ],
    }


def _p_a(value: float) -> dict[str, str]:
    if math.isnan(value):
        return {"exact": "-1", "shown": "< 0.5"}
    return {"exact": repr(value), "shown": round_down(value, 4)}
