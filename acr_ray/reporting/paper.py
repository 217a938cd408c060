"""Tables as the paper sets them: its Tables 1 and 2 (methods by sigma) and its ablation (which parts are on).

ACR has three decimals to the nearest here, as the paper prints it, so that tables can be laid side by side;
everywhere else ACR is rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acr_ray.reporting.cell_text import latex_text, lower, markdown_text, percent_text, radius_text
from acr_ray.reporting.report import Report, Row

#: Below every table.
TOLD = (
    "ACR to the nearest third decimal; in %: certified accuracy at r, and hard images (p_A < 0.5). Bold: best of its"
    " column; of ACR only if no other method leaves fewer images hard."
)
LAYOUTS = ("comparison", "paper", "ablation")
#: Names of a row of the ablation in which no part is on.
_NO_PARTS = ("none", "base", "gaussian")


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False


@dataclass(frozen=True)
class Layout:
    """A table before it becomes Markdown or LaTeX; ``groups`` are parted by a rule."""

    header: list[str]
    left: int
    groups: list[list[list[Cell]]]
    warnings: list[str]


def paper_layout(report: Report) -> Layout:
    """Tables 1 and 2, and the hard share: methods grouped by sigma; the best of each group is bold (see `_values`)."""
    groups = []
    for sigma in sorted({row.sigma for row in report.rows}):
        chosen = [k for k, row in enumerate(report.rows) if row.sigma == sigma]
        marked = _values([report.rows[k] for k in chosen])
        names = [_method(report, k) for k in chosen]
        lines = [[Cell(f"{sigma:g}"), Cell(name), *cells] for name, cells in zip(names, marked, strict=True)]
        groups.append(lines)
    return Layout(["sigma", "method", *_columns(report)], 2, groups, report.warnings)


def ablation_layout(report: Report) -> Layout:
    """Return the ablation: sources named ``part+part`` become rows with a mark below each part that is on."""
    parts: list[str] = []
    held = [_parts(row.name) for row in report.rows]
    for names in held:
        parts += [p for p in names if p not in parts]
    lines = []
    for row, on, cells in zip(report.rows, held, _values(report.rows), strict=True):
        marks = [Cell("yes" if p in on else "") for p in parts]
        tag = row.shown_name.removeprefix(row.name).strip()
        if tag and marks:
            marks[0] = Cell(f"{marks[0].text} {tag}".strip())
        lines.append([*marks, *cells])
    return Layout([*parts, *_columns(report)], len(parts), [lines], report.warnings)


def _columns(report: Report) -> list[str]:
    return ["ACR", *(f"r = {radius_text(r)}" for r in report.radii), "hard"]


def layout_markdown(layout: Layout) -> str:
    """Return the table as GitHub Markdown; groups follow each other."""
    rule = ["---"] * layout.left + ["---:"] * (len(layout.header) - layout.left)
    lines = [[markdown_text(h) for h in layout.header], rule]
    for group in layout.groups:
        lines += [[f"**{c.text}**" if c.best else markdown_text(c.text) for c in line] for line in group]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text += ["", markdown_text(TOLD)]
    text += [f"\n- {markdown_text(w)}" for w in layout.warnings]
    return "\n".join(text) + "\n"


def layout_latex(layout: Layout) -> str:
    """Return the table for a paper (booktabs), a rule between groups."""
    columns = "l" * layout.left + "r" * (len(layout.header) - layout.left)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(map(latex_text, layout.header))]
    for group in layout.groups:
        lines.append(r"\midrule")
        lines += [_latex_row(rf"\textbf{{{c.text}}}" if c.best else latex_text(c.text) for c in line) for line in group]
    lines += [r"\bottomrule", r"\end{tabular}", f"% {TOLD}", *(f"% warning: {w}" for w in layout.warnings)]
    return "\n".join(lines) + "\n"


def _latex_row(cells) -> str:
    return " & ".join(cells) + r" \\"


def _values(rows: Sequence[Row]) -> list[list[Cell]]:
    """ACR, certified accuracy and hard share as text, the best of each column marked if there is a choice.

    A lower value is not ranked. The highest ACR is marked only if no other method leaves fewer images hard: else
    it may have been bought with the images that were given up.
    """
    texts = [
        [f"{row.acr:.3f}", *map(percent_text, row.certified_accuracy), percent_text(row.hard_share)] for row in rows
    ]
    curve = [row.acr_between is not None for row in rows]
    is_lower = [[row.acr_is_lower, *row.lower_at, False] for row in rows]
    best: list[set[int]] = []
    for k, column in enumerate(zip(*texts, strict=True)):
        hard = k == len(texts[0]) - 1
        exact = {i: float(t) for i, t in enumerate(column) if not is_lower[i][k] and (hard or float(t))}
        top = (min if hard else max)(exact.values(), default=0.0)
        best.append({i for i, value in exact.items() if value == top and len(rows) > 1})
    best[0] &= best[-1]
    return [
        [
            Cell(lower(t, low, curve[i] and b is not best[-1]), i in b)
            for t, low, b in zip(line, lows, best, strict=True)
        ]
        for i, (line, lows) in enumerate(zip(texts, is_lower, strict=True))
    ]


def _method(report: Report, position: int) -> str:
    """Return the name without what sets it apart from the same method at another sigma, but with ``incomplete``."""
    source = report.sources[position]
    return source.method + source.shown_name.removeprefix(source.name)


def _parts(name: str) -> list[str]:
    return [] if name.lower() in _NO_PARTS else [part.strip() for part in name.split("+")]
