"""``report.html``: one file that needs no network. Texts of sources are escaped wherever they appear."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources

from acr_ray import __version__
from acr_ray.reporting.page import markup
from acr_ray.reporting.page.data import page_data
from acr_ray.reporting.page.paired import paired
from acr_ray.reporting.report import Report

#: The page stays below this; thumbnails are left out first.
MOST_BYTES = 3_000_000


def render_page(report: Report, thumbnails: Mapping[int, bytes] | None = None) -> str:
    """The whole page.

    Args:
        report: what to show.
        thumbnails: PNG files by image index, for the images that got worse; if they would make the
            page too large they are left out.
    """
    parts = {
        "title": markup.title(report),
        "lead": markup.lead(report),
        "verdicts": markup.verdicts(report),
        "warnings": markup.warnings(report),
        "table": markup.table(report),
        "p_a_table": markup.p_a_table(report),
        "by_bin": markup.acr_by_bin_table(report),
        "ranking": markup.ranking(report),
        "sources": markup.source_list(report),
        "version": markup.text(__version__),
        "data": script_json(page_data(report)),
        "style": _file("style.css"),
        "script": _file("charts.js") + _file("page.js").replace('"use strict";\n', ""),
    }
    page = _fill({**parts, "paired": paired(report, thumbnails or {})})
    if thumbnails and len(page.encode()) > MOST_BYTES:
        page = _fill({**parts, "paired": paired(report, {})})
    return page


def script_json(value: object) -> str:
    """JSON that cannot end the ``<script>`` it stands in, whatever its strings hold."""
    dumped = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _fill(parts: Mapping[str, str]) -> str:
    """One pass, so that braces within a part are left as they are."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file("template.html"))
