"""Figures for papers: PNG, SVG or PDF, drawn from the numbers of a report."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from acr_ray.reporting.budget import acr_by_budget, sensitivity
from acr_ray.reporting.intervals import ecdf_band
from acr_ray.reporting.metrics import certified_accuracy_steps
from acr_ray.reporting.pairing import BIN_NAMES, acr_by_bin
from acr_ray.reporting.report import Report
from acr_ray.reporting.source import Source
from acr_ray.smoothing.bounds import max_radius

#: Told apart in print and by colour-blind readers, together with the dashes.
COLOURS = ("#2563a8", "#c2571a", "#1a7f5a", "#8a4fb0", "#b0324a", "#6b6b1e", "#2f8ba0", "#7a5230")
DASHES = ("solid", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
FORMATS = ("png", "svg", "pdf")
MOST_POINTS = 2000
_LONGEST = 28
BUDGETS = tuple(int(round(10 ** (k / 4))) for k in range(8, 25))
_PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", " "))
_STYLE: dict[Any, Any] = {  # matplotlib's stubs would have each key as a literal
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: publishers refuse the default, Type 3
    "ps.fonttype": 42,
    "svg.hashsalt": "acr_ray",
    "text.parse_math": False,  # names of sources are shown as they are
}


def figures(report: Report, formats: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """Return all figures of a report, by file name.

    ``p_a``, ``certified_accuracy``, ``budget``, ``sensitivity``, ``acr_by_p_a``, and ``gain_by_p_a`` if
    sources could be paired; ``best_per_radius`` if that was asked for.
    """
    drawers: dict[str, Callable[[Report], Figure]] = {
        "p_a": p_a_figure,
        "certified_accuracy": certified_accuracy_figure,
        "budget": budget_figure,
        "sensitivity": sensitivity_figure,
        "acr_by_p_a": acr_by_p_a_figure,
    }
    if report.comparisons:
        drawers["gain_by_p_a"] = gain_by_p_a_figure
    if report.best is not None:
        drawers["best_per_radius"] = best_figure
    drawn = {}
    with matplotlib.rc_context(_STYLE):
        for name, draw in drawers.items():
            figure = draw(report)
            for form in formats:
                stream = io.BytesIO()
                metadata = {"Date": None} if form == "svg" else {"CreationDate": None} if form == "pdf" else None
                figure.savefig(stream, format=form, dpi=160, metadata=metadata)
                drawn[f"{name}.{form}"] = stream.getvalue()
    return drawn


def p_a_figure(report: Report) -> Figure:
    """Draw the share of images with p_A of at least x, with its 95 % band."""
    figure, axes = _axes("$p_A$", "share of images with at least this $p_A$", "Distribution of $p_A$")
    for k, source in enumerate(report.sources):
        x, y = source.distribution.steps(MOST_POINTS)
        # "at least x" is continuous from the left: the step to y[i] lies at x[i-1].
        axes.step(x, y, where="pre", **_line(k, source))
        band = ecdf_band(source, x)
        if band is not None:
            axes.fill_between(x, *band, step="pre", color=COLOURS[k % len(COLOURS)], alpha=0.12, linewidth=0)
    start = min(s.distribution.known_from for s in report.sources)
    axes.set_xlim(start, 1.0)
    axes.set_ylim(0, 1)
    if start < 0.5:
        axes.axvline(0.5, color="#999999", linewidth=0.8)
    axes.legend(loc="lower left")
    return figure


def certified_accuracy_figure(report: Report) -> Figure:
    """Draw certified accuracy over the l2 radius, with the constant classifier."""
    figure, axes = _axes(r"$\ell_2$ radius", "certified accuracy", "Certified accuracy")
    for k, source in enumerate(report.sources):
        r, share = certified_accuracy_steps(source, MOST_POINTS)
        axes.step(r, share, where="pre", **_line(k, source))
    if report.constant is not None:
        row = report.constant
        ceiling = max_radius(row.sigma, row.n, row.alpha)
        axes.plot([0, ceiling], [report.constant_share] * 2, color="#888888", linewidth=1, label=row.shown_name)
    axes.set_xlim(0)
    axes.set_ylim(0, 1)
    axes.legend(loc="upper right")
    return figure


def budget_figure(report: Report) -> Figure:
    """ACR as a function of N at each source's alpha; dashed if N exceeds the draws that were made."""
    figure, axes = _axes("N, noise draws an image", "ACR", "ACR depends on the budget")
    for k, source in enumerate(report.sources):
        if not source.derivable:
            axes.plot([], [], **_line(k, source) | {"label": f"{_label(source)}: not derived"})
            continue
        acrs = acr_by_budget(source.distribution, source.sigma, BUDGETS, [source.alpha])[0]
        made = np.array(BUDGETS) <= source.n
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(np.array(BUDGETS)[made], acrs[made], color=colour, label=_label(source))
        beyond = slice(max(int(made.sum()) - 1, 0), None)
        axes.plot(BUDGETS[beyond], acrs[beyond], color=colour, linestyle=(0, (2, 2)))
    if report.constant is not None and report.constant_share is not None:
        row = report.constant
        ceilings = [report.constant_share * max_radius(row.sigma, n, row.alpha) for n in BUDGETS]
        axes.plot(BUDGETS, ceilings, color="#888888", linewidth=1, label=row.shown_name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.set_ylim(0)
    axes.legend(loc="best")
    return figure


def sensitivity_figure(report: Report) -> Figure:
    """dR/dp_A = sigma / phi(Phi^-1(p_A)) for each sigma of the report."""
    figure, axes = _axes("$p_A$", "$dR / dp_A$", "What a gain in $p_A$ is worth to ACR")
    p = 1 - np.logspace(np.log10(0.5), -5, 400)
    for k, sigma in enumerate(sorted({s.sigma for s in report.sources})):
        axes.plot(p, sensitivity(p, sigma), color=COLOURS[k % len(COLOURS)], label=f"sigma = {sigma:g}")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_PLAIN)
    axes.set_xlim(0.5, 1.0)
    axes.legend(loc="upper left")
    return figure


def acr_by_p_a_figure(report: Report) -> Figure:
    """Draw each ACR split by the p_A of the images that it comes from."""
    figure, axes = _axes("ACR", "", "Which images ACR comes from")
    parts = np.array([acr_by_bin(s) for s in report.sources])
    start = np.zeros(len(parts))
    shades = matplotlib.colormaps["Blues"](np.linspace(0.12, 0.95, len(BIN_NAMES)))
    for k, name in enumerate(BIN_NAMES):
        if parts[:, k].any():
            axes.barh(range(len(parts)), parts[:, k], left=start, color=shades[k], label=name, height=0.6)
        start = start + parts[:, k]
    axes.set_yticks(range(len(parts)), [_label(s) for s in report.sources])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    figure.legend(*axes.get_legend_handles_labels(), title="p_A", loc="outside lower center", ncols=4, fontsize=8)
    return figure


def gain_by_p_a_figure(report: Report) -> Figure:
    """Draw the gain in ACR over the baseline, by the baseline's p_A."""
    figure, axes = _axes("$p_A$ under the baseline", "gain in ACR", "Who gains over the baseline")
    width = 0.8 / len(report.comparisons)
    order = [s.name for s in report.sources]
    for k, comparison in enumerate(report.comparisons):
        at = np.arange(len(BIN_NAMES)) + (k - (len(report.comparisons) - 1) / 2) * width
        source = report.sources[order.index(comparison.name)]
        colour = COLOURS[order.index(comparison.name) % len(COLOURS)]
        axes.bar(at, [b.gain for b in comparison.bins], width * 0.9, color=colour, label=_label(source))
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set_xticks(range(len(BIN_NAMES)), [n.replace(" to ", "–") for n in BIN_NAMES], fontsize=8)
    axes.grid(axis="x", visible=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def best_figure(report: Report) -> Figure:
    """Draw the cross-fitted certified accuracy of the best source for each radius, all sources behind it."""
    figure, axes = _axes(r"$\ell_2$ radius", "certified accuracy", "Best source for each radius")
    best = report.best
    assert best is not None  # drawn only if asked for
    shown = {source.name: k for k, source in enumerate(report.sources)}
    for name, accuracy in zip(best.names, best.accuracy, strict=True):
        if name in best.winners:
            axes.plot(best.curve_radii, accuracy, **_line(shown[name], report.sources[shown[name]]) | {"linewidth": 1})
        else:
            axes.plot(best.curve_radii, accuracy, color="#c9c9c9", linewidth=0.6, zorder=1)
    axes.plot(best.curve_radii, best.curve, color="#111111", linewidth=2.2, label="best per radius, cross-fitted")
    axes.set_xlim(0)
    axes.set_ylim(0, 1)
    axes.legend(loc="upper right", fontsize=8)
    return figure


def _axes(x: str, y: str, title: str):
    """A figure with one pair of axes. The three texts are ours and may hold formulas; names of sources may not."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    heading = axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    for text in (axes.xaxis.label, axes.yaxis.label, heading):
        text.set_parse_math(True)
    return figure, axes


def _label(source: Source) -> str:
    """Return the shown name, short enough to leave room for the axes; ``incomplete`` is never cut off."""
    name = source.name if len(source.name) <= _LONGEST else source.name[: _LONGEST - 1] + "…"
    return name + source.shown_name.removeprefix(source.name)


def _line(k: int, source: Source) -> dict:
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k // len(COLOURS) % len(DASHES)],
        "linewidth": 1.6,
        "label": _label(source),
    }
