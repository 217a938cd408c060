"""The search's report: ACR against the share of hard images, as a picture and as a page of its own."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from acr_ray.formats.files import PAGE
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

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>
:root {{ --paper: #fff; --ink: #1c1c1c; --line: #e4e4e4; --rule: #888; --front: #eef4fb; --best: #fdf1e7 }}
@media (prefers-color-scheme: dark) {{
:root {{ --paper: #161719; --ink: #e9e7e1; --line: #303236; --rule: #8f8e88; --front: #1c2c3d; --best: #3a2a1c }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 90rem;
margin: 2rem auto; padding: 0 1rem }} p {{ max-width: 46rem }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
img {{ max-width: 100%; height: auto; background: #fff }}
.scroll {{ overflow-x: auto }} table {{ border-collapse: collapse; font-size: 13px }}
th, td {{ padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }}
th {{ border-bottom: 1px solid var(--rule); vertical-align: bottom; white-space: normal; overflow-wrap: anywhere;
min-width: 3.5rem }} td:first-child, th:first-child {{ text-align: left }}
tr.front td {{ background: var(--front) }} tr.best td {{ background: var(--best); font-weight: 600 }}
@media print {{ .scroll {{ overflow: visible }} table {{ font-size: 7pt }} th, td {{ padding: .15rem }} }}
</style></head><body>
"""


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
    title = f"Search over {context.recipe.name}: {len(reports)} trials"
    front = {r["trial"] for r in acr_front(reports)}
    best = best_of(reports, context.asked[0])
    parts = [_HEAD.format(title=html.escape(title)), f"<h1>{html.escape(title)}</h1>"]
    parts.append(f"<p>{html.escape(verdict(out, reports, baseline) or 'No trial was trained to its end.')}</p>")
    image = base64.b64encode(picture).decode()
    parts.append(
        f'<img alt="ACR against the share of hard images, a point a trial" src="data:image/png;base64,{image}">'
    )
    v = context.validation
    parts.append(
        f"<p>Measured on {summary['validation_images']} images held out from training, at most {v.n} noise draws each "
        f"(alpha = {v.alpha:g}, {'fewer where the rank does not need them' if v.stopping == 'rank' else 'all drawn'}); "
        "the test images had no part in it. Radii of images that stopped early are estimates, no certificates: "
        "certify what you choose.</p>"
    )
    parts.append("<h2>Trials</h2>" + _table(context, reports, front, best["trial"] if best else ""))
    passes = summary["passes"]
    parts.append(
        f"<h2>Cost</h2><p>{passes['total']:,} rows through the network: {passes['trials']:,} in the trials, "
        f"{passes['trunks']:,} in {len(summary['trunks'])} trunks that they share, "
        f"{passes['validation']:,} in validation, {passes['baseline']:,} in the Gaussian baseline.</p></body></html>\n"
    )
    out.write_text(PAGE, "\n".join(parts))


def _table(context: SearchContext, reports: list[Report], front: set[str], best: str) -> str:
    fields = list(reports[0]["point"]) if reports else []
    shown = list(dict.fromkeys((*context.asked, ACR, HARD)))
    head = ["trial", "status", *fields, *(o.name for o in shown), "epochs", "passes / 10^6", "seconds"]
    rows = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
    done = TrialStatus.FINISHED
    order = sorted(reports, key=lambda r: (r["status"] != done, -shown[0].sign * _sortable(r, shown[0])))
    for report in order:
        passes = report.get("forward_passes", 0) + report.get("backward_passes", 0)
        cells = [report["trial"], report["status"], *(_value(report["point"][field]) for field in fields)]
        cells += [_value(report.get(o.name, float("nan"))) for o in shown]
        cells += [str(report.get("epoch", 0)), f"{passes / 1e6:.2f}", f"{report.get('seconds', 0):.0f}"]
        kind = "best" if report["trial"] == best else "front" if report["trial"] in front else ""
        tip = f' title="{html.escape(report["reason"], quote=True)}"' if report.get("reason") else ""
        rows.append(f'<tr class="{kind}"{tip}>' + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    legend = "<p>Orange: the best by what was asked for. Blue: on the front of ACR against hard images.</p>"
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>{legend}'


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
