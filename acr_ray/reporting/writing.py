"""Leaves a report in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from acr_ray.formats.files import (
    BEST_CSV,
    CLASSES_CSV,
    PAGE,
    SUMMARY,
    TABLE_CSV,
    TABLE_LATEX,
    TABLE_MARKDOWN,
    TABLE_TEXT,
)
from acr_ray.reporting.best_tables import best_csv, best_latex, best_markdown
from acr_ray.reporting.class_tables import classes_csv
from acr_ray.reporting.opening import Assumptions, open_sources
from acr_ray.reporting.page import render_page
from acr_ray.reporting.paper import LAYOUTS, ablation_layout, layout_latex, layout_markdown, paper_layout
from acr_ray.reporting.report import Report, build_report
from acr_ray.reporting.source import Source
from acr_ray.reporting.summary import summary
from acr_ray.reporting.tables import comparison_table, csv_table, latex_table, markdown_table
from acr_ray.settings.errors import UserError
from acr_ray.storage import Folder, check_own, own

JOB = "report"
OWNED = (PAGE, SUMMARY, TABLE_MARKDOWN, TABLE_LATEX, TABLE_CSV, TABLE_TEXT, CLASSES_CSV, BEST_CSV)


def write_report(
    sources: Sequence[str | tuple[str, str] | Source],
    out: Folder,
    *,
    radii: Sequence[float] | None = None,
    constant: bool = True,
    baseline: str | None = None,
    assumptions: Assumptions | None = None,
    resolve_run: Callable[[str], str] | None = None,
    thumbnails: Mapping[int, bytes] | None = None,
    formats: Sequence[str] = ("png",),
    layout: str = "comparison",
    best: bool = False,
) -> Report:
    """Open the sources, compute the report, and write all of it into ``out``.

    Leaves ``report.html``, the figures, ``table.md``, ``table.tex``, ``table.csv``, ``table.txt``, ``classes.csv`` and,
    last, ``summary.json``: where that is, the rest is. With ``best`` also ``best_per_radius.csv``.

    Args:
        sources: each ``NAME=SOURCE`` text, a pair ``(name, location)``, or an opened source.
        out: where to write.
        radii, constant, baseline, best: see `acr_ray.reporting.report.build_report`.
        assumptions: sigma, n and alpha of files that do not say them.
        resolve_run: makes a local folder of ``runs:/RUN_ID``.
        thumbnails: PNG files by image index, for the list of images that got worse.
        formats: of the figures, from ``png``, ``svg``, ``pdf``.
        layout: of ``table.md`` and ``table.tex``: ``comparison``, ``paper`` (its Tables 1 and 2) or ``ablation``.

    Returns:
        The report; `acr_ray.reporting.tables.comparison_table` prints it.

    Raises:
        UserError: a source cannot be read, an option is out of range, or ``out`` cannot be written or holds what no
            report wrote.
    """
    from acr_ray.reporting.figures import FORMATS, figures  # with them comes matplotlib, which takes a second

    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise UserError(f"--formats {', '.join(unknown)}: choose from {', '.join(FORMATS)}")
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout}: choose from {', '.join(LAYOUTS)}")
    check_own(out, JOB, OWNED)
    paths = [s for s in sources if not isinstance(s, Source)]
    opened = open_sources(paths, assumptions, resolve_run) if paths else []
    files = iter(opened)
    held = [s if isinstance(s, Source) else next(files) for s in sources]
    report = build_report(held, radii, constant, baseline, best)
    drawn, page = figures(report, formats), render_page(report, thumbnails)
    own(out, JOB, OWNED)  # nothing is made before everything is known to be right
    for name, content in drawn.items():
        out.write_bytes(name, content)
    for name, text in _tables(report, layout).items():
        out.write_text(name, text)
    out.write_text(TABLE_CSV, csv_table(report))
    out.write_text(CLASSES_CSV, classes_csv(report))
    if report.best is not None:
        out.write_text(BEST_CSV, best_csv(report.best))
    else:  # of an earlier report in this folder
        for name in filter(out.is_file, (BEST_CSV, *(f"best_per_radius.{form}" for form in FORMATS))):
            out.delete(name)
    out.write_text(TABLE_TEXT, comparison_table(report) + "\n")
    out.write_text(PAGE, page)
    out.write_json(SUMMARY, summary(report))
    return report


def _tables(report: Report, layout: str) -> dict[str, str]:
    if layout == "comparison":
        return {TABLE_MARKDOWN: markdown_table(report), TABLE_LATEX: latex_table(report)}
    chosen = paper_layout(report) if layout == "paper" else ablation_layout(report)
    text, latex = layout_markdown(chosen), layout_latex(chosen)
    if report.best is not None:
        text, latex = f"{text}\n{best_markdown(report.best)}\n", f"{latex}\n{best_latex(report.best)}"
    return {TABLE_MARKDOWN: text, TABLE_LATEX: latex}
