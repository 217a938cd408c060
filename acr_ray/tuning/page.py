"""The search's report: ACR against the share of hard images, as a picture and as a page of its own."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from acr_ray.formats.files import PAGE
from acr_ray.formats.page_templates import page_templates
from acr_ray.formats.states import TrialStatus
from acr_ray.storage import Folder
from acr_ray.tuning.results import ACR, HARD, Report, acr_front, best_of, measured
from acr_ray.tuning.trial_run import SearchContext
from acr_ray.tuning.verdict import verdict

PICTURE = "acr_against_hard_share.png"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_BEST, _FRONT, _OTHER, _BASE = "#c2571a", "#2563a8", "#8a8a8a", "#3b7d3b"


def draw(reports: list[Report], baseline: Report | None = None) -> bytes:
    """A PNG: every measured trial, the Pareto front of ACR and hard images, and the trial that ACR alone would take."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        stopped = [r for r in measured(reports, finished_only=False) if r["status"] == TrialStatus.STOPPED]
        done, front = measured(reports), acr_front(reports)
        _points(axes, stopped, color=_OTHER, marker="x", s=24, linewidths=0.9, label="stopped early, as last measured")
        _points(axes, done, color=_OTHER, s=26, label="trained to the end")
        axes.plot(*_coordinates(front), color=_FRONT, linewidth=1.2, drawstyle="steps-post")
        _points(axes, front, s=70, zorder=3, label="Pareto front", facecolors="none", edgecolors=_FRONT)
        _points(axes, front[:1], color=_BEST, s=70, marker="*", zorder=4, label="highest ACR")
        _points(axes, measured([baseline] if baseline else []), color=_BASE, s=46, marker="D", label="plain Gaussian")
        axes.set_xlabel("hard images, $p_A$ < 0.5 (%)")
        axes.set_ylabel("ACR on validation images")
        axes.set_title("What ACR costs", loc="left", fontsize=10, fontweight="bold")
        if done or stopped:
            axes.legend(loc="best", fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        return buffer.getvalue()


def write_page(
    out: Folder, context: SearchContext, reports: list[Report], summary: dict[str, Any], baseline: Report | None = None
) -> None:
    """Leave the picture and ``report.html``, which needs no other file."""
    picture = draw(reports, baseline)
    out.write_bytes(PICTURE, picture)
    template = page_templates("acr_ray.tuning").get_template("search.html")
    page = template.render(
        title=f"Search over {context.recipe.name}: {len(reports)} trials",
        verdict=verdict(out, reports, baseline) or "No trial was trained to its end.",
        picture=base64.b64encode(picture).decode(),
        validation_images=summary["validation_images"],
        validation=context.validation,
        table=_table(context, reports),
        passes={name: f"{count:,}" for name, count in summary["passes"].items()},
        trunks=len(summary["trunks"]),
    )
    out.write_text(PAGE, page)


def _table(context: SearchContext, reports: list[Report]) -> dict[str, Any]:
    """Return the titles of the columns and a row a trial, all as text; finished trials first, the best on top."""
    front = {r["trial"] for r in acr_front(reports)}
    best = best_of(reports, context.asked[0])
    fields = list(reports[0]["point"]) if reports else []
    shown = list(dict.fromkeys((*context.asked, ACR, HARD)))
    head = ["trial", "status", *fields, *(o.name for o in shown), "epochs", "passes / 10^6", "seconds"]
    rows = []
    done = TrialStatus.FINISHED
    order = sorted(reports, key=lambda r: (r["status"] != done, -shown[0].sign * _sortable(r, shown[0])))
    for report in order:
        passes = report.get("forward_passes", 0) + report.get("backward_passes", 0)
        cells = [report["trial"], report["status"], *(_value(report["point"][field]) for field in fields)]
        cells += [_value(report.get(o.name, float("nan"))) for o in shown]
        cells += [str(report.get("epoch", 0)), f"{passes / 1e6:.2f}", f"{report.get('seconds', 0):.0f}"]
        is_best = best is not None and report["trial"] == best["trial"]
        kind = "best" if is_best else "front" if report["trial"] in front else ""
        rows.append({"cells": cells, "kind": kind, "reason": report.get("reason")})
    return {"head": head, "rows": rows}


def _value(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)


def _sortable(report: Report, objective: Any) -> float:
    value = report.get(objective.name, float("nan"))
    return -objective.sign * float("inf") if value != value else value


def _coordinates(reports: list[Report]) -> tuple[list[float], list[float]]:
    ordered = sorted(reports, key=lambda r: r[HARD.name])
    return [100 * r[HARD.name] for r in ordered], [r[ACR.name] for r in ordered]


def _points(axes: Any, reports: list[Report], **style: Any) -> None:
    if reports:
        axes.scatter(*_coordinates(reports), **style)
