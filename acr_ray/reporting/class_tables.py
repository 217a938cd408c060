"""Numbers by class as text and CSV."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from acr_ray.formats.metrics import Metric, MetricKey, number_text
from acr_ray.reporting.cell_text import lower, percent_text
from acr_ray.reporting.classes import QUANTILES, ClassNumbers, worst_first
from acr_ray.reporting.report import Report, Row

#: Classes in tables to read, the worst first; ``classes.csv`` and ``summary.json`` have all.
MOST_READ = 10
#: Sources side by side in such a table.
MOST_SIDE_BY_SIDE = 6


def worst_told(report: Report) -> str:
    """Return the class of each source with the lowest certified accuracy at radius 0; "" if none has classes."""
    told = [
        f"{row.shown_name}: {worst.shown} ({accuracy_text(worst)} % at r = 0, {percent_text(worst.hard_share)} % hard)"
        for row in report.rows
        if (worst := row.worst_class)
    ]
    return f"Worst class: {'; '.join(told)}." if told else ""


def order_of_classes(report: Report) -> list[int]:
    """Return the labels of all classes, the worst first."""
    return worst_first({row.name: row.classes for row in report.rows})


def class_lines(report: Report) -> list[list[str]]:
    """Return the worst classes as cells: certified accuracy at radius 0, and in brackets the hard share, by source.

    The first line holds the titles. Empty if there are fewer than two classes, or more sources than a line holds.
    """
    held = [row for row in report.rows if row.classes]
    labels = order_of_classes(report)
    if len(labels) < 2 or not 1 <= len(held) <= MOST_SIDE_BY_SIDE:
        return []
    by_label = [{c.label: c for c in row.classes} for row in held]
    lines = [["class", *(row.shown_name for row in held)]]
    for label in labels[:MOST_READ]:
        of = [classes.get(label) for classes in by_label]
        lines.append([next(c.shown for c in of if c), *(_cell(c) for c in of)])
    return lines


def class_title(report: Report) -> str:
    """Return what stands above these lines, and how many classes are left out."""
    left_out = len(order_of_classes(report)) - MOST_READ
    more = f", the worst {MOST_READ}; {left_out} more in classes.csv" if left_out > 0 else ""
    return f"Certified accuracy at r = 0 by class, and hard images in brackets (%){more}:"


def accuracy_text(c: ClassNumbers) -> str:
    """Return a class's certified accuracy at radius 0 in percent."""
    return lower(percent_text(c.accuracy_at_0), c.is_lower)


def _cell(c: ClassNumbers | None) -> str:
    return "–" if c is None else f"{accuracy_text(c)} ({percent_text(c.hard_share)})"


def classes_csv(report: Report) -> str:
    """Return ``classes.csv``: a line for each class of each source, exact; what is not known is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    quantiles = (MetricKey(Metric.P_A_QUANTILE, q).column for q in QUANTILES)
    radii = (MetricKey(Metric.CERTIFIED_ACCURACY, r).column for r in report.radii)
    fixed = ("name", "incomplete", "class", "class_name", "images", "hard_share", "accuracy_at_0", "p_a_mean")
    writer.writerow([*fixed, *quantiles, *radii])
    for row in report.rows:
        for c in row.classes:
            cells: list[Any] = [row.name, int(row.shown_name != row.name), c.label, c.name, c.images, c.hard_share]
            cells += [c.accuracy_at_0, "" if c.p_a_mean is None else c.p_a_mean]
            cells += ["" if math.isnan(p) else p for p in c.p_a]
            writer.writerow(cells + list(c.certified_accuracy))
    return stream.getvalue()


def classes_json(row: Row, radii: tuple[float, ...]) -> dict[str, dict[str, Any]]:
    """Return a source's classes as ``summary.json`` has them, by label; what is not known is null."""
    return {str(c.label): _class_json(c, radii) for c in row.classes}


def worst_json(row: Row) -> dict[str, Any] | None:
    """Return the class with the lowest certified accuracy at radius 0 as ``summary.json`` has it."""
    worst = row.worst_class
    if worst is None:
        return None
    numbers = {"images": worst.images, "accuracy_at_0": worst.accuracy_at_0, "hard_share": worst.hard_share}
    return {"class": worst.label, "class_name": worst.name, **numbers}


def _class_json(c: ClassNumbers, radii: tuple[float, ...]) -> dict[str, Any]:
    p_a = {number_text(q): None if math.isnan(p) else p for q, p in zip(QUANTILES, c.p_a, strict=True)}
    return {
        "class_name": c.name,
        "images": c.images,
        "hard_share": c.hard_share,
        "accuracy_at_0": c.accuracy_at_0,
        "certified_accuracy": {number_text(r): share for r, share in zip(radii, c.certified_accuracy, strict=True)},
        "p_a_mean": c.p_a_mean,
        "p_a_quantile": p_a,
    }
