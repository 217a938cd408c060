"""The comparison table as plain text, Markdown, LaTeX and CSV. Radii and ACR are rounded down."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from acr_ray.formats.metrics import Metric, MetricKey
from acr_ray.reporting.best_tables import best_cells, best_latex, best_lines, best_markdown, best_title
from acr_ray.reporting.cell_text import (
    acr_text,
    latex_text,
    lower,
    markdown_lines,
    markdown_text,
    one_line,
    percent_text,
    radius_text,
)
from acr_ray.reporting.class_tables import class_lines, class_title, worst_told
from acr_ray.reporting.report import Report, Row
from acr_ray.smoothing.run_noise import SOUND

#: Of a source that stopped early, at a budget that is not its own.
NOT_DERIVED = "–"
LOWER_TOLD = "≥: a lower value, which is not ranked against exact ones"


def header(report: Report) -> list[str]:
    """Column titles, as plain words."""
    common = [] if report.common_budget is None else ["ACR at N = {}, alpha = {:g}".format(*report.common_budget)]
    accuracy = [f"r = {radius_text(r)} (%)" for r in report.radii]
    return ["method", "ACR", *common, *accuracy, "hard, p_A < 0.5 (%)"]


def cells(row: Row, common_budget: tuple[int, float] | None) -> list[str]:
    """One row's cells as text, in the order of `header`; ``common_budget`` is the report's."""
    curve = row.acr_between is not None
    shares = [lower(percent_text(s), low, curve) for s, low in zip(row.certified_accuracy, row.lower_at, strict=True)]
    return [
        row.shown_name,
        lower(acr_text(row.acr), row.acr_is_lower, curve),
        *([] if common_budget is None else [NOT_DERIVED if row.common_acr is None else acr_text(row.common_acr)]),
        *shares,
        percent_text(row.hard_share),
    ]


def main_lines(report: Report) -> list[list[str]]:
    """Return the lines of the comparison table as cells: a row each, and, if asked for, the best for each radius."""
    return [*(cells(row, report.common_budget) for row in report.all_rows), *best_cells(report)]


def comparison_table(report: Report) -> str:
    """Return the table as monospaced plain text, one line a method, warnings below."""
    text = _aligned([header(report), *main_lines(report)], 1)
    text += [certificates_told(report), *([one_line(worst_told(report))] if worst_told(report) else [])]
    text += [f"{LOWER_TOLD}: {', '.join(one_line(n) for n in lower_names(report))}"] * bool(lower_names(report))
    if both := kinds_cells(report):
        text += ["", "The same draws under both kinds of certificates:", *_aligned([kinds_header(report), *both], 2)]
    if report.best is not None:
        text += ["", best_title(report.best), *_aligned(best_lines(report.best), 1)]
    if by_class := class_lines(report):
        text += ["", class_title(report), *_aligned(by_class, 1)]
    text += [str(turned) for turned in report.turned]
    text += [f"warning: {one_line(w)}" for w in report.warnings]
    return "\n".join(line.rstrip() for line in text)


def _aligned(lines: Sequence[Sequence[str]], words: int) -> list[str]:
    """Return a table with its titles underlined; the first columns, ``words`` of them, are set to the left."""
    lines = [[one_line(cell) for cell in line] for line in lines]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    text = [
        "  ".join(c.ljust(w) if k < words else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    text.insert(1, "  ".join("-" * w for w in widths))
    return text


def kinds_header(report: Report) -> list[str]:
    """Return the titles of the table of both kinds of certificates."""
    accuracy = [f"r = {radius_text(r)} (%)" for r in report.radii]
    return ["method", "certificate", "ACR", "abstained (%)", *accuracy]


def kinds_cells(report: Report) -> list[list[str]]:
    """Return its lines as text: each source whose counts say both kinds under each of them."""
    return [
        [row.shown_name, kind.kind, acr_text(kind.acr), percent_text(kind.abstained)]
        + [percent_text(share) for share in kind.certified_accuracy]
        for row in report.rows
        if len(row.kinds) > 1
        for kind in row.kinds
    ]


def certificates_told(report: Report) -> str:
    """Return the kind of certificates that the main table shows."""
    kinds = sorted({row.certificate for row in report.rows})
    if len(kinds) == 1:
        return f"Certificates: {kinds[0]}.{grades_told(report)}"
    each = (f"{kind} in {', '.join(row.name for row in report.rows if row.certificate == kind)}" for kind in kinds)
    return f"Certificates: {'; '.join(each)}: not comparable.{grades_told(report)}"


def grades_told(report: Report) -> str:
    """Return which sources hold in floating point (docs/noise.md); "" if none does."""
    sound = [row.name for row in report.rows if row.grade == SOUND]
    return f" Sound in floating point: {', '.join(sound)}." if sound else ""


def lower_names(report: Report) -> list[str]:
    """Return the methods whose ACR is a lower value."""
    return [row.name for row in report.all_rows if row.acr_is_lower]


def markdown_table(report: Report) -> str:
    """Return the table as GitHub Markdown, with verdicts and warnings below it."""
    shown = (header(report), *main_lines(report))
    lines = [[markdown_text(c) for c in line] for line in shown]
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    text = ["| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:])]
    text += ["", f"Certified accuracy at each radius; ACR rounded down. {markdown_text(certificates_told(report))}"]
    if lower_names(report):
        text[-1] += f" {LOWER_TOLD}: {', '.join(map(markdown_text, lower_names(report)))}."
    if worst_told(report):
        text[-1] += f" {markdown_text(worst_told(report))}"
    if both := kinds_cells(report):
        told = [[markdown_text(c) for c in line] for line in (kinds_header(report), *both)]
        rule = ["---", "---"] + ["---:"] * (len(told[0]) - 2)
        text += ["", "The same draws under both kinds of certificates:", ""]
        text += ["| " + " | ".join(line) + " |" for line in (told[0], rule, *told[1:])]
    if report.best is not None:
        text += ["", best_markdown(report.best)]
    if by_class := class_lines(report):
        text += ["", class_title(report), "", *markdown_lines(by_class)]
    verdicts = [*_named_verdicts(report), *map(str, report.turned)]
    for title, sentences in (("Verdict", verdicts), ("Warnings", report.warnings)):
        if sentences:
            text += ["", f"**{title}**", "", *(f"- {markdown_text(s)}" for s in sentences)]
    return "\n".join(text) + "\n"


def latex_table(report: Report) -> str:
    """Return the table for a paper (booktabs); warnings as comments, so that they cannot get lost in copying."""
    columns = header(report)
    lines = [r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}", r"\toprule"]
    lines.append(" & ".join(latex_text(c) for c in columns) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(latex_text(c) for c in line) + r" \\" for line in main_lines(report)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% {latex_text(told)}" for told in (certificates_told(report), worst_told(report)) if told]
    lines += [f"% warning: {one_line(w)}" for w in report.warnings]
    more = "" if report.best is None else "\n" + best_latex(report.best)
    return "\n".join(lines) + "\n" + more


def csv_table(report: Report) -> str:
    """Return the table with exact numbers: shares in [0, 1], radii not rounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fixed: tuple[str, ...] = ("name", "incomplete", "images", "sigma", "n", "alpha", "acr", "acr_is_lower")
    fixed += ("acr_low", "acr_high", "hard_share")
    radii = (MetricKey(Metric.CERTIFIED_ACCURACY, r).column for r in report.radii)
    writer.writerow(
        [*fixed, *radii, "grade", "certificate", "worst_class", "worst_class_accuracy_at_0", "worst_class_hard_share"]
    )
    for row in report.all_rows:
        low, high = row.acr_interval or ("", "")
        incomplete, worst = int(row.shown_name != row.name), row.worst_class
        writer.writerow(
            [row.name, incomplete, "" if row.images is None else row.images, row.sigma, row.n, row.alpha]
            + [row.acr, int(row.acr_is_lower), low, high, row.hard_share, *row.certified_accuracy]
            + [row.grade, row.certificate]
            + (["", "", ""] if worst is None else [worst.label, worst.accuracy_at_0, worst.hard_share])
        )
    return stream.getvalue()


def _named_verdicts(report: Report) -> list[str]:
    return [f"{c.name}: {v}" for c, v in zip(report.comparisons, report.verdicts, strict=True)]
