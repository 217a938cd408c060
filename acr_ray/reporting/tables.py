"""The comparison table as plain text, Markdown, LaTeX and CSV. Radii and ACR are rounded down."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from acr_ray.formats.metrics import Metric, MetricKey, number_text
from acr_ray.reporting.report import Report, Row
from acr_ray.smoothing.bounds import round_down

ACR_DIGITS = 4
#: Of a source that stopped early, at a budget that is not its own.
NOT_DERIVED = "–"
LOWER_TOLD = "≥: a lower value, which is not ranked against exact ones"
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def acr_text(value: float) -> str:
    """ACR as shown everywhere: four decimals, rounded down."""
    return round_down(value, ACR_DIGITS)


def lower(text: str, is_lower: bool = True, is_estimate: bool = False) -> str:
    """Return a number as text that says if it is a lower value, or an estimate from a curve."""
    return f"≥ {text}" if is_lower else f"≈ {text}" if is_estimate else text


def percent_text(share: float) -> str:
    """Return a share in [0, 1] as percent with one decimal, to the nearest (radii round down, shares do not)."""
    return f"{share * 100:.1f}"


def radius_text(radius: float) -> str:
    """Return a chosen radius, exact: at least two decimals, all digits that it has, and never rounded up."""
    text = number_text(radius)
    if "e" in text or float(text) != radius:
        return round_down(radius, 6)
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


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


def comparison_table(report: Report) -> str:
    """Return the table as monospaced plain text, one line a method, warnings below."""
    text = _aligned([header(report), *(cells(row, report.common_budget) for row in report.all_rows)], 1)
    text += [certificates_told(report)]
    text += [f"{LOWER_TOLD}: {', '.join(_one_line(n) for n in lower_names(report))}"] * bool(lower_names(report))
    if both := kinds_cells(report):
        text += ["", "The same draws under both kinds of certificates:", *_aligned([kinds_header(report), *both], 2)]
    text += [str(turned) for turned in report.turned]
    text += [f"warning: {_one_line(w)}" for w in report.warnings]
    return "\n".join(line.rstrip() for line in text)


def _aligned(lines: Sequence[Sequence[str]], words: int) -> list[str]:
    """Return a table with its titles underlined; the first columns, ``words`` of them, are set to the left."""
    lines = [[_one_line(cell) for cell in line] for line in lines]
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
        return f"Certificates: {kinds[0]}."
    each = (f"{kind} in {', '.join(row.name for row in report.rows if row.certificate == kind)}" for kind in kinds)
    return f"Certificates: {'; '.join(each)}: not comparable."


def lower_names(report: Report) -> list[str]:
    """Return the methods whose ACR is a lower value."""
    return [row.name for row in report.all_rows if row.acr_is_lower]


def markdown_table(report: Report) -> str:
    """Return the table as GitHub Markdown, with verdicts and warnings below it."""
    shown = (header(report), *(cells(row, report.common_budget) for row in report.all_rows))
    lines = [[markdown_text(c) for c in line] for line in shown]
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    text = ["| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:])]
    text += ["", f"Certified accuracy at each radius; ACR rounded down. {markdown_text(certificates_told(report))}"]
    if lower_names(report):
        text[-1] += f" {LOWER_TOLD}: {', '.join(map(markdown_text, lower_names(report)))}."
    if both := kinds_cells(report):
        told = [[markdown_text(c) for c in line] for line in (kinds_header(report), *both)]
        rule = ["---", "---"] + ["---:"] * (len(told[0]) - 2)
        text += ["", "The same draws under both kinds of certificates:", ""]
        text += ["| " + " | ".join(line) + " |" for line in (told[0], rule, *told[1:])]
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
    shown = (cells(row, report.common_budget) for row in report.all_rows)
    lines += [" & ".join(latex_text(c) for c in line) + r" \\" for line in shown]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% {_one_line(certificates_told(report))}"]
    lines += [f"% warning: {_one_line(w)}" for w in report.warnings]
    return "\n".join(lines) + "\n"


def csv_table(report: Report) -> str:
    """Return the table with exact numbers: shares in [0, 1], radii not rounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fixed: tuple[str, ...] = ("name", "incomplete", "images", "sigma", "n", "alpha", "acr", "acr_is_lower")
    fixed += ("acr_low", "acr_high", "hard_share")
    radii = (MetricKey(Metric.CERTIFIED_ACCURACY, r).column for r in report.radii)
    writer.writerow([*fixed, *radii, "certificate"])
    for row in report.all_rows:
        low, high = row.acr_interval or ("", "")
        incomplete = int(row.shown_name != row.name)
        writer.writerow(
            [row.name, incomplete, "" if row.images is None else row.images, row.sigma, row.n, row.alpha]
            + [row.acr, int(row.acr_is_lower), low, high, row.hard_share, *row.certified_accuracy, row.certificate]
        )
    return stream.getvalue()


def _named_verdicts(report: Report) -> list[str]:
    return [f"{c.name}: {v}" for c, v in zip(report.comparisons, report.verdicts, strict=True)]


def _one_line(text: str) -> str:
    """Without line breaks and control characters: names come from files and command lines."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()


def markdown_text(text: str) -> str:
    """Any text as one line of Markdown, nothing in it taken as markup."""
    text = re.sub(r"([\\|`*_\[\]#])", r"\\\1", _one_line(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_text(text: str) -> str:
    """Any text as one line of LaTeX, nothing in it taken as a command; p_A becomes a formula."""
    return "".join(_LATEX.get(c, c) for c in _one_line(text)).replace("p\\_A", "$p_A$").replace("<", "$<$")
