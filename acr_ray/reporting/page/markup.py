"""The parts of the page that are complete without scripts: sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from acr_ray.reporting.budget import acr_by_budget, rank_changes
from acr_ray.reporting.page.data import ALPHAS, BUDGETS, interval_text
from acr_ray.reporting.pairing import BIN_NAMES, acr_by_bin, images_by_bin
from acr_ray.reporting.report import Report, Row
from acr_ray.reporting.tables import NOT_DERIVED, acr_text, lower, percent_text, radius_text
from acr_ray.smoothing.bounds import round_down

#: Where the distribution of p_A is given in figures.
TABLE_P_A = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


def text(value: object) -> str:
    """Any text as HTML text or attribute."""
    return escape(str(value), quote=True)


def prose(sentence: str) -> str:
    """A sentence of ours as HTML, p_A and comparisons set as a reader expects them."""
    return text(sentence.replace(">=", "≥")).replace("p_A", "<i>p<sub>A</sub></i>")


def title(report: Report) -> str:
    names = [row.name for row in report.rows]
    return text(f"{names[0]}: certified robustness" if len(names) == 1 else f"{' vs '.join(names[:3])}"[:120])


def lead(report: Report) -> str:
    sigmas = sorted({row.sigma for row in report.rows})
    noise = ", ".join(f"{s:g}" for s in sigmas)
    images = sorted({row.images for row in report.rows if row.images is not None})
    counted = "" if not images else f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    of = f" of {counted.replace(',', chr(0x202F))} images" if counted else ""
    return f"Randomized smoothing with σ = {text(noise)}: certificates{of} from {len(report.rows)} source" + (
        "s." if len(report.rows) > 1 else "."
    )


def verdicts(report: Report) -> str:
    """Plain language first; each links to the images that got worse."""
    if not report.comparisons:
        return ""
    items = []
    for comparison, sentence in zip(report.comparisons, report.verdicts, strict=True):
        link = ""
        if comparison.worse_count:
            anchor = f"worse-{position(report, comparison.name)}"
            link = f' <a href="#{anchor}">{comparison.worse_count} images got worse.</a>'
        tint, name = colour(report, comparison.name), shown(report, comparison.name)
        items.append(f'<li style="{tint}"><b>{name}.</b> {prose(sentence)}{link}</li>')
    return f'<ul class="verdicts">{"".join(items)}</ul>'


def warnings(report: Report) -> str:
    if not report.warnings:
        return ""
    items = "".join(f"<li>{prose(w)}</li>" for w in report.warnings)
    return f'<aside class="warnings" aria-label="Warnings"><h2>Before you compare</h2><ul>{items}</ul></aside>'


def name_cell(row: Row) -> str:
    """The method, and beside it, never far away, that its run is incomplete."""
    tag = row.shown_name.removeprefix(row.name).strip(" ()")
    return text(row.name) + (f' <span class="tag">{text(tag)}</span>' if tag else "")


def table(report: Report) -> str:
    """The comparison table; the script only changes what is chosen, not how it is read."""
    common = report.common_budget
    # Hard images stand right behind ACR, where no width of screen or paper cuts them off.
    hard = "hard, p<sub>A</sub> &lt; 0.5 (%)"
    heads = ['<th scope="col"><button type="button">method</button></th>', _head("ACR")]
    heads.append(f'<th scope="col" data-column="hard"><button type="button">{hard}</button></th>')
    if common is not None:
        heads.append(_head(f"ACR at N = {common[0]}, α = {common[1]:g}"))
    heads += [_head(f"r = {radius_text(r)} (%)", f' data-radius="{r!r}"') for r in report.radii]
    body = "".join(_table_row(k, row, report) for k, row in enumerate(report.all_rows))
    return wide(
        '<table id="numbers" data-sortable><caption>ACR, share of hard images, certified accuracy at each radius r'
        "</caption>"
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table>",
        "Comparison table",
    )


def _table_row(k: int, row: Row, report: Report) -> str:
    curve = row.acr_between is not None
    shown = lower(acr_text(row.acr), row.acr_is_lower, curve)
    interval = "" if row.acr_interval is None else f"<small>{interval_text(row.acr_interval)}</small>"
    exact = f'data-own="{shown}" data-exact="{row.acr!r}" data-value="{row.acr!r}"'
    cells = [
        f'<th scope="row"><span class="key" style="{row_colour(k, row)}"></span> {name_cell(row)}</th>',
        f'<td data-field="acr" {exact}>{shown}{interval}</td>',
        f'<td data-field="hard" data-value="{row.hard_share!r}">{percent_text(row.hard_share)}</td>',
    ]
    if row.common_acr is not None:
        cells.append(f'<td data-field="common" data-value="{row.common_acr!r}">{acr_text(row.common_acr)}</td>')
    elif report.common_budget is not None:
        cells.append(f'<td data-field="common" data-value="-1">{NOT_DERIVED}</td>')
    for r, share, low in zip(report.radii, row.certified_accuracy, row.lower_at, strict=True):
        cell = lower(percent_text(share), low, curve)
        cells.append(f'<td data-field="accuracy" data-radius="{r!r}" data-value="{share!r}">{cell}</td>')
    kind = ' class="constant"' if row.kind == "constant" else ""
    return f'<tr data-row="{k}" data-name="{text(row.name)}"{kind}>{"".join(cells)}</tr>'


def p_a_table(report: Report) -> str:
    """The curves at a few points, for whoever reads rather than looks."""
    rows = []
    for source, row in zip(report.sources, report.rows, strict=True):
        shares = source.distribution.at_least(TABLE_P_A)
        cells = "".join(f"<td>{'unknown' if share != share else percent_text(share)}</td>" for share in shares)
        rows.append(f'<tr><th scope="row">{name_cell(row)}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">≥ {p:g}</th>' for p in TABLE_P_A)
    return "<details><summary>The same as a table</summary>" + (
        wide(
            "<table><caption>% of images with at least this p<sub>A</sub></caption>"
            f'<thead><tr><th scope="col">method</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>',
            "Distribution of p_A",
        )
        + "</details>"
    )


def acr_by_bin_table(report: Report) -> str:
    """Stacked bars to see, and the same as a table to read."""
    parts = [acr_by_bin(s) for s in report.sources]
    longest = max(max(sum(p) for p in parts), 1e-12)
    keys = "".join(f'<li><i style="--c:var(--b{b})"></i>{name}</li>' for b, name in enumerate(BIN_NAMES) if b)
    rows = []
    for source, row, values in zip(report.sources, report.rows, parts, strict=True):
        bars = "".join(
            f'<span style="--c:var(--b{b});--w:{v / longest * 100:.2f}%"></span>' for b, v in enumerate(values) if v > 0
        )
        shares = images_by_bin(source)
        cells = "".join(
            f"<td>{acr_text(v)}<small>{percent_text(share)} %</small></td>"
            for v, share in zip(values, shares, strict=True)
        )
        rows.append(
            f'<tr><th scope="row">{name_cell(row)}</th>'
            f'<td><div class="stack" aria-hidden="true">{bars}</div></td>{cells}</tr>'
        )
    heads = "".join(f'<th scope="col">{name.replace(" to ", "–")}</th>' for name in BIN_NAMES)
    return f'<ul class="keys" aria-hidden="true">{keys}</ul>' + wide(
        "<table><caption>ACR by p<sub>A</sub>, and % of images</caption>"
        f'<thead><tr><td colspan="2"></td><th scope="colgroup" colspan="{len(BIN_NAMES)}">ACR from images with'
        " p<sub>A</sub></th></tr>"
        f'<tr><th scope="col">method</th><th scope="col"></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
        "ACR by p_A",
    )


def ranking(report: Report) -> str:
    """Which order ACR gives at small and large budgets, and who overtakes whom between."""
    if len(report.rows) < 2:
        return "With more draws the same classifier gets a higher ACR; nothing about it has changed."
    sources = [s for s in report.sources if not s.sequential]
    left_out = ", ".join(s.shown_name for s in report.sources if s.sequential)
    left_out = f" Not derived, for their draws were stopped by what they showed: {left_out}." if left_out else ""
    if len(sources) < 2:
        return text(f"With more draws the same classifier gets a higher ACR; nothing about it has changed.{left_out}")
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
    return text(
        f"At alpha = {alpha:g}, from N = {BUDGETS[0]} to {BUDGETS[-1]}: {_told(by_n)}."
        f" At N = {n}, from alpha = {ALPHAS[0]:g} to {ALPHAS[-1]:g}: {_told(by_alpha)}.{left_out}"
    )


def _told(changes: Sequence[str], most: int = 6) -> str:
    if not changes:
        return "the order of methods stays the same"
    more = f"; and {len(changes) - most} more" if len(changes) > most else ""
    return "; ".join(changes[:most]) + more


def source_list(report: Report) -> str:
    items = []
    for k, (source, row) in enumerate(zip(report.sources, report.rows, strict=True)):
        pairs: Sequence[tuple[str, object]] = (
            ("images", "not said" if row.images is None else row.images),
            ("σ", f"{row.sigma:g}"),
            ("N", row.n),
            ("α", f"{row.alpha:g}"),
            ("abstained", "not said" if row.abstained is None else f"{percent_text(row.abstained)} %"),
            ("file", source.where),
            *(("note", note) for note in row.notes),
        )
        listed = "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in pairs)
        key = f'<span class="key" style="{row_colour(k, row)}"></span>'
        items.append(f"<li><h3>{key} {name_cell(row)}</h3><dl>{listed}</dl></li>")
    return f'<ul class="sources">{"".join(items)}</ul>'


def _head(label: str, attributes: str = "") -> str:
    return f'<th scope="col"{attributes}><button type="button">{text(label)}</button></th>'


def wide(inner: str, label: str) -> str:
    """Scrolls sideways on a phone, by finger and by arrow keys."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{text(label)}">{inner}</div>'


def position(report: Report, name: str) -> int:
    return next(k for k, row in enumerate(report.rows) if row.name == name)


def shown(report: Report, name: str) -> str:
    return name_cell(report.rows[position(report, name)])


def colour(report: Report, name: str) -> str:
    return f"--c:var(--s{position(report, name) % 8})"


def row_colour(k: int, row: Row) -> str:
    return "--c:var(--constant)" if row.kind == "constant" else f"--c:var(--s{k % 8})"


def signed(value: float) -> str:
    """A difference with its sign, rounded towards smaller numbers as radii are."""
    shown = round_down(value, 4)
    return shown.replace("-", "−") if value <= 0 else f"+{shown}"
