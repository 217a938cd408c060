"""What the page's templates show: sentences and tables as plain data, numbers already as text.

All of it is complete without scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from acr_ray.reporting.budget import acr_by_budget, rank_changes
from acr_ray.reporting.cell_text import acr_text, lower, percent_text, points_text, radius_text
from acr_ray.reporting.page.data import ALPHAS, BUDGETS, interval_text
from acr_ray.reporting.pairing import BIN_NAMES, acr_by_bin, images_by_bin
from acr_ray.reporting.report import Report, Row
from acr_ray.reporting.tables import NOT_DERIVED, certificates_told
from acr_ray.smoothing.distribution_rule import FROM, UPTO

#: Where the distribution of p_A is given in figures.
TABLE_P_A = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


def sections(report: Report) -> dict[str, Any]:
    """Return what the templates ask for, by name; `acr_ray.reporting.page.paired` has the rest."""
    return {
        "title": _title(report),
        "lead": _lead(report),
        "verdicts": _verdicts(report),
        "warnings": report.warnings,
        "numbers": _numbers(report),
        "certificates": certificates_told(report),
        "kinds": _kinds(report),
        "turned": [str(turned) for turned in report.turned],
        "p_a": _p_a(report),
        "by_bin": _by_bin(report),
        "ranking": ranking(report),
        "sources": [_source(report, k) for k in range(len(report.rows))],
    }


def prose(sentence: str) -> Markup:
    """Return a sentence of ours as HTML, p_A and comparisons set as a reader expects them."""
    return Markup("<i>p<sub>A</sub></i>").join(sentence.replace(">=", "≥").split("p_A"))


def _title(report: Report) -> str:
    names = [row.name for row in report.rows]
    return f"{names[0]}: certified robustness" if len(names) == 1 else f"{' vs '.join(names[:3])}"[:120]


def _lead(report: Report) -> str:
    sigmas = sorted({row.sigma for row in report.rows})
    noise = ", ".join(f"{s:g}" for s in sigmas)
    images = sorted({row.images for row in report.rows if row.images is not None})
    counted = "" if not images else f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    of = f" of {counted.replace(',', chr(0x202F))} images" if counted else ""
    return f"Randomized smoothing with σ = {noise}: certificates{of} from {len(report.rows)} source" + (
        "s." if len(report.rows) > 1 else "."
    )


def _verdicts(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "named": named(report, comparison.name),
            "colour": colour(report, comparison.name),
            "sentence": sentence,
            "worse": comparison.worse_count,
            "anchor": anchor(report, comparison.name),
        }
        for comparison, sentence in zip(report.comparisons, report.verdicts, strict=True)
    ]


def _numbers(report: Report) -> dict[str, Any]:
    """Return the comparison table: what is ``shown``, and the ``exact`` number that the page sorts by."""
    common = report.common_budget
    return {
        "common": None if common is None else f"ACR at N = {common[0]}, α = {common[1]:g}",
        "radii": [{"exact": repr(r), "shown": radius_text(r)} for r in report.radii],
        "rows": [_numbers_of(k, row, report) for k, row in enumerate(report.all_rows)],
    }


def _numbers_of(k: int, row: Row, report: Report) -> dict[str, Any]:
    curve = row.acr_between is not None
    common = None
    if row.common_acr is not None:
        common = {"exact": repr(row.common_acr), "shown": acr_text(row.common_acr)}
    elif report.common_budget is not None:
        common = {"exact": "-1", "shown": NOT_DERIVED}
    return {
        "named": _named(row),
        "colour": row_colour(k, row),
        "is_constant": row.kind == "constant",
        "acr": {"exact": repr(row.acr), "shown": lower(acr_text(row.acr), row.acr_is_lower, curve)},
        "interval": None if row.acr_interval is None else interval_text(row.acr_interval),
        "hard": {"exact": repr(row.hard_share), "shown": percent_text(row.hard_share)},
        "worst": _worst(row),
        "common": common,
        "accuracy": [
            {"radius": repr(r), "exact": repr(share), "shown": lower(percent_text(share), low, curve)}
            for r, share, low in zip(report.radii, row.certified_accuracy, row.lower_at, strict=True)
        ],
    }


def _worst(row: Row) -> str | None:
    """Return the worst class and its hard share; None if classes are not known."""
    worst = row.worst_class
    return None if worst is None else f"class {worst.shown}: {percent_text(worst.hard_share)}"


def _kinds(report: Report) -> dict[str, Any]:
    """Return the sources whose counts say both kinds of certificates, under each."""
    rows = []
    for k, row in enumerate(report.rows):
        for kind in row.kinds if len(row.kinds) > 1 else ():
            rows.append(
                {
                    "named": _named(row),
                    "colour": row_colour(k, row),
                    "kind": kind.kind,
                    "first": kind is row.kinds[0],
                    "acr": acr_text(kind.acr),
                    "interval": interval_text(kind.acr_interval),
                    "abstained": percent_text(kind.abstained),
                    "accuracy": [percent_text(share) for share in kind.certified_accuracy],
                }
            )
    return {"radii": [radius_text(r) for r in report.radii], "rows": rows}


def _p_a(report: Report) -> dict[str, Any]:
    """Return the curves at a few points."""
    rows = []
    for source, row in zip(report.sources, report.rows, strict=True):
        shares = source.distribution.at_least(TABLE_P_A)
        shown = ["unknown" if share != share else percent_text(share) for share in shares]
        rows.append({"named": _named(row), "shares": shown})
    sure = [
        f"Of these images alone, the curve of {row.shown_name} lies within"
        f" {points_text(row.p_a_error)} points of the truth from p_A = {FROM:g}"
        f" to {UPTO:g}, with probability {1 - row.alpha:g}."
        for row in report.rows
        if row.p_a_error is not None
    ]
    return {"heads": [f"{p:g}" for p in TABLE_P_A], "rows": rows, "sure": sure}


def _by_bin(report: Report) -> dict[str, Any]:
    """Return which images ACR comes from; the longest stack of bars is 100 % wide."""
    parts = [acr_by_bin(s) for s in report.sources]
    longest = max(max(sum(p) for p in parts), 1e-12)
    rows = []
    for source, row, values in zip(report.sources, report.rows, parts, strict=True):
        shares = images_by_bin(source)
        rows.append(
            {
                "named": _named(row),
                "bars": [{"bin": b, "width": f"{v / longest * 100:.2f}%"} for b, v in enumerate(values) if v > 0],
                "cells": [
                    {"acr": acr_text(v), "share": f"{percent_text(share)} %"}
                    for v, share in zip(values, shares, strict=True)
                ],
            }
        )
    return {"bins": BIN_NAMES, "rows": rows}


def ranking(report: Report) -> str:
    """Return which order ACR gives at small and large budgets, and who overtakes whom between."""
    if len(report.rows) < 2:
        return "With more draws the same classifier gets a higher ACR; nothing about it has changed."
    sources = [s for s in report.sources if s.derivable]
    left_out = ""
    for reason, others in (
        ("their draws were stopped by what they showed", [s for s in report.sources if s.sequential]),
        ("they are two-class", [s for s in report.sources if not s.derivable and not s.sequential]),
    ):
        if others:
            left_out += f" Not derived, for {reason}: {', '.join(s.shown_name for s in others)}."
    if len(sources) < 2:
        return f"With more draws the same classifier gets a higher ACR; nothing about it has changed.{left_out}"
    alpha, n = sources[0].alpha, sources[0].n
    made = min(s.n for s in sources)
    names = [s.shown_name for s in sources]
    parts = [acr_by_budget(s.distribution, s.sigma, BUDGETS, [alpha])[0] for s in sources]
    by_n = [
        f"{riser} overtakes {passed} by N = {at}{' (more than were drawn)' if at > made else ''}"
        for riser, passed, at in rank_changes(names, parts, BUDGETS)
    ]
    parts = [acr_by_budget(s.distribution, s.sigma, [n], ALPHAS)[:, 0] for s in sources]
    by_alpha = [
        f"{riser} overtakes {passed} by alpha = {at:g}" for riser, passed, at in rank_changes(names, parts, ALPHAS)
    ]
    return (
        f"At alpha = {alpha:g}, from N = {BUDGETS[0]} to {BUDGETS[-1]}: {_told(by_n)}."
        f" At N = {n}, from alpha = {ALPHAS[0]:g} to {ALPHAS[-1]:g}: {_told(by_alpha)}.{left_out}"
    )


def _told(changes: Sequence[str], most: int = 6) -> str:
    if not changes:
        return "the order of methods stays the same"
    more = f"; and {len(changes) - most} more" if len(changes) > most else ""
    return "; ".join(changes[:most]) + more


def _source(report: Report, k: int) -> dict[str, Any]:
    source, row = report.sources[k], report.rows[k]
    facts: Sequence[tuple[str, object]] = (
        ("images", "not said" if row.images is None else row.images),
        ("σ", f"{row.sigma:g}"),
        ("N", row.n),
        ("α", f"{row.alpha:g}"),
        ("abstained", "not said" if row.abstained is None else f"{percent_text(row.abstained)} %"),
        ("file", source.where),
        *(("note", note) for note in row.notes),
    )
    return {"named": _named(row), "colour": row_colour(k, row), "facts": facts}


def named(report: Report, name: str) -> dict[str, str]:
    """Return a method's name, and as its ``tag`` that its run is incomplete."""
    return _named(report.rows[_position(report, name)])


def colour(report: Report, name: str) -> str:
    return f"--c:var(--s{_position(report, name) % 8})"


def anchor(report: Report, name: str) -> str:
    """Return where on the page the images are that got worse under a method."""
    return f"worse-{_position(report, name)}"


def _named(row: Row) -> dict[str, str]:
    return {"name": row.name, "tag": row.shown_name.removeprefix(row.name).strip(" ()")}


def _position(report: Report, name: str) -> int:
    return next(k for k, row in enumerate(report.rows) if row.name == name)


def row_colour(k: int, row: Row) -> str:
    """Return the colour of the k-th source as a CSS variable."""
    return "--c:var(--constant)" if row.kind == "constant" else f"--c:var(--s{k % 8})"
