"""``summary.json``: a report as exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from acr_ray.formats.metrics import Metric, number_text
from acr_ray.reporting.best_tables import best_json
from acr_ray.reporting.class_tables import classes_json, worst_json
from acr_ray.reporting.classes import ClassChange
from acr_ray.reporting.kinds import KindNumbers, OrderTurned
from acr_ray.reporting.pairing import Comparison
from acr_ray.reporting.report import Report, Row

SCHEMA_VERSION = 1


def summary(report: Report) -> dict[str, Any]:
    """Return the content of ``summary.json``: exact numbers, by the names of the contract."""
    return {
        "schema_version": SCHEMA_VERSION,
        "baseline": report.baseline,
        "radii": list(report.radii),
        "common_budget": _budget_json(report.common_budget),
        "sources": [_as_json(row, report.radii) for row in report.rows],
        "constant": None if report.constant is None else _as_json(report.constant, report.radii),
        "order_by_certificate": [_turned_json(turned) for turned in report.turned],
        "best_per_radius": best_json(report.best),
        "comparisons": [_comparison_json(c, v) for c, v in zip(report.comparisons, report.verdicts, strict=True)],
    }


def certify_numbers(row: Row, radii: Sequence[float]) -> dict[str, Any]:
    """Return the numbers of a certification's own ``summary.json``, by the names of the contract."""
    everything = _as_json(row, radii)
    wanted = (Metric.ACR, "acr_is_lower", Metric.CERTIFIED_ACCURACY, Metric.HARD_SHARE, Metric.ABSTAINED, "images")
    kinds = ("certificate", "certificates", "p_a_error")
    return {str(key): everything[key] for key in (*wanted, *kinds)}


def _as_json(row: Row, radii: Sequence[float]) -> dict[str, Any]:
    return {
        "name": row.name,
        "images": row.images,
        "incomplete": row.shown_name != row.name,
        "sigma": row.sigma,
        "n": row.n,
        "alpha": row.alpha,
        "acr": row.acr,
        "acr_is_lower": row.acr_is_lower,
        "acr_between": None if row.acr_between is None else list(row.acr_between),
        "acr_interval": None if row.acr_interval is None else list(row.acr_interval),
        "acr_at_common_budget": row.common_acr,
        "certified_accuracy": {number_text(r): share for r, share in zip(radii, row.certified_accuracy, strict=True)},
        "certified_accuracy_is_lower": [number_text(r) for r, low in zip(radii, row.lower_at, strict=True) if low],
        "hard_share": row.hard_share,
        "p_a_error": row.p_a_error,
        "abstained": row.abstained,
        "certificate": row.certificate,
        "grade": row.grade,
        "certificates": {kind.kind: _kind_json(kind, radii) for kind in row.kinds},
        "worst_class": worst_json(row),
        "classes": classes_json(row, tuple(radii)),
        "warnings": list(row.warnings),
        "notes": list(row.notes),
    }


def _kind_json(kind: KindNumbers, radii: Sequence[float]) -> dict[str, Any]:
    shares = zip(radii, kind.certified_accuracy, strict=True)
    return {
        "derived": not kind.own,
        "acr": kind.acr,
        "acr_interval": list(kind.acr_interval),
        "certified_accuracy": {number_text(r): share for r, share in shares},
        "abstained": kind.abstained,
    }


def _turned_json(turned: OrderTurned) -> dict[str, Any]:
    return {
        "ahead_one_class": turned.one,
        "ahead_two_class": turned.other,
        "images": turned.images,
        "acr_one_class": list(turned.one_class),
        "acr_two_class": list(turned.two_class),
        "shown": list(turned.shown),
        "verdict": str(turned),
    }


def _budget_json(budget: tuple[int, float] | None) -> dict[str, float] | None:
    return None if budget is None else {"n": budget[0], "alpha": budget[1]}


def _comparison_json(c: Comparison, text: str) -> dict[str, Any]:
    return {
        "name": c.name,
        "baseline": c.baseline,
        "images": c.images,
        "same_model": c.same_model,
        "radii_that_both_can_say": None if c.grid is None else list(c.grid),
        "acr_gain": c.gain,
        "acr_gain_interval": list(c.interval),
        "gain_from_certified": c.gain_from_certified,
        "gain_from_easy": c.gain_from_easy,
        "hard_before": c.hard_before,
        "hard_after": c.hard_after,
        "hard_change_interval": list(c.hard_interval),
        "hard_by_class": {str(k.label): _change_json(k) for k in c.classes},
        "classes_given_up": [k.label for k in c.classes if k.given_up],
        "worse": c.worse_count,
        "by_baseline_p_a": {b.name: {"images": b.images, "gain": b.gain} for b in c.bins},
        "verdict": text,
    }


def _change_json(k: ClassChange) -> dict[str, Any]:
    return {
        "images": k.images,
        "before": k.hard_before,
        "after": k.hard_after,
        "accuracy_at_0_before": k.accuracy_before,
        "accuracy_at_0_after": k.accuracy_after,
        "growth_share": k.growth_share,
        "given_up": k.given_up,
    }
