"""The best source for each radius as text, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
from typing import Any

from acr_ray.formats.metrics import number_text
from acr_ray.reporting.best import BestAt, BestPerRadius
from acr_ray.reporting.cell_text import latex_text, lower, markdown_lines, percent_text, radius_text
from acr_ray.reporting.report import Report

NAME = "best per radius, cross-fitted"
NOT_SAID = "–"  # a row of many sources has no ACR of its own


def best_cells(report: Report) -> list[list[str]]:
    """Return the line that the comparison table ends with: cross-fitted certified accuracy; none if not asked for."""
    if report.best is None:
        return []
    common = [] if report.common_budget is None else [NOT_SAID]
    shares = [lower(percent_text(at.cross_fitted), at.is_lower) for at in report.best.at]
    return [[NAME, NOT_SAID, *common, *shares, NOT_SAID]]


def best_title(best: BestPerRadius) -> str:
    """Return what the table of choices says, and how many sources it chooses from."""
    first, second = best.halves
    left_out = f", of which {best.left_out} are in this choice only" if best.left_out else ""
    return (
        f"Best source for each radius, of {len(best.names)}{left_out}: chosen on one half of the {best.images} images"
        f" and counted on the other ({first} and {second}; cross-fitted: both), beside the naive best, chosen and"
        " counted on all:"
    )


def best_lines(best: BestPerRadius) -> list[list[str]]:
    """Return the titles, and a line for each radius; shares in percent, optimism in points."""
    head = ["radius", "chosen on half 1", "on half 2 (%)", "chosen on half 2", "on half 1 (%)"]
    head += ["cross-fitted (%)", "95 % interval", "naive best", "naive (%)", "optimism (points)"]
    return [head, *(_line(at) for at in best.at)]


def _line(at: BestAt) -> list[str]:
    return [
        radius_text(at.radius),
        at.chosen[0],
        percent_text(at.held_out[0]),
        at.chosen[1],
        percent_text(at.held_out[1]),
        lower(percent_text(at.cross_fitted), at.is_lower),
        interval_text(at),
        at.naive_source,
        lower(percent_text(at.naive), at.is_lower),
        optimism_text(at),
    ]


def interval_text(at: BestAt) -> str:
    """Return the interval of the cross-fitted share, in percent."""
    return f"[{percent_text(at.interval[0])}, {percent_text(at.interval[1])}]"


def optimism_text(at: BestAt) -> str:
    """Return the optimism in points, with its sign and two decimals: it is often below a tenth."""
    return f"{round(at.optimism * 100, 2) + 0.0:+.2f}"


def best_markdown(best: BestPerRadius) -> str:
    """Return the choices as GitHub Markdown, the title above them."""
    return "\n".join([best_title(best), "", *markdown_lines(best_lines(best))])


def best_latex(best: BestPerRadius) -> str:
    """Return the choices as a table for a paper."""
    lines = best_lines(best)
    text = [f"% {best_title(best)}", r"\begin{tabular}{rlrlrrrlrr}", r"\toprule"]
    rows = [" & ".join(latex_text(cell) for cell in line) + r" \\" for line in lines]
    return "\n".join([*text, rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


def best_csv(best: BestPerRadius) -> str:
    """Return ``best_per_radius.csv``: a line for each radius, exact."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["radius", "chosen_on_half_1", "held_out_on_half_2", "chosen_on_half_2", "held_out_on_half_1", "cross_fitted"]
        + ["cross_fitted_low", "cross_fitted_high", "naive_source", "naive", "optimism", "is_lower"]
    )
    for at in best.at:
        chosen = [at.chosen[0], at.held_out[0], at.chosen[1], at.held_out[1]]
        naive = [at.naive_source, at.naive, at.optimism, int(at.is_lower)]
        writer.writerow([at.radius, *chosen, at.cross_fitted, *at.interval, *naive])
    return stream.getvalue()


def best_json(best: BestPerRadius | None) -> dict[str, Any] | None:
    """Return the choices as ``summary.json`` has them; null if they were not asked for."""
    if best is None:
        return None
    return {
        "sources": list(best.names),
        "images": best.images,
        "images_in_halves": list(best.halves),
        "radii": {number_text(at.radius): _json(at) for at in best.at},
    }


def _json(at: BestAt) -> dict[str, Any]:
    return {
        "chosen_on_halves": list(at.chosen),
        "held_out": list(at.held_out),
        "cross_fitted": at.cross_fitted,
        "cross_fitted_interval": list(at.interval),
        "naive_source": at.naive_source,
        "naive": at.naive,
        "optimism": at.optimism,
        "is_lower": at.is_lower,
    }
