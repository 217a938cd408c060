"""``report.html``: one file that needs no network. Texts of sources are escaped wherever they appear."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources

from markupsafe import Markup

from acr_ray import __version__
from acr_ray.formats.page_templates import page_templates
from acr_ray.reporting.page.best import best_data, best_sections
from acr_ray.reporting.page.by_class import by_class_sections
from acr_ray.reporting.page.data import page_data
from acr_ray.reporting.page.paired import paired
from acr_ray.reporting.page.sections import prose, sections
from acr_ray.reporting.report import Report

#: The page stays below this; thumbnails are left out first.
MOST_BYTES = 3_000_000
#: Where the template leaves room for the numbers that the page's script reads.
DATA = "<!--data-->"


def render_page(report: Report, thumbnails: Mapping[int, bytes] | None = None) -> str:
    """Return the whole page.

    Args:
        report: what to show.
        thumbnails: PNG files by image index, for the images that got worse; if they would make the
            page too large they are left out.
    """
    templates = page_templates(__name__)
    templates.filters["prose"] = prose
    template = templates.get_template("report.html")
    parts = {
        **sections(report),
        **by_class_sections(report),
        **best_sections(report),
        "version": __version__,
        "style": _file("style.css"),
        "script": _file("charts.js") + _file("page.js").replace('"use strict";\n', ""),
    }
    data = script_json(page_data(report) | {"best": best_data(report)})

    def rendered(pictures: Mapping[int, bytes]) -> str:
        # The data are put in last and as they are. No text can forge their place: templates escape its "<".
        return template.render(parts, **paired(report, pictures)).replace(DATA, data)

    page = rendered(thumbnails or {})
    if thumbnails and len(page.encode()) > MOST_BYTES:
        page = rendered({})
    return page


def script_json(value: object) -> str:
    """JSON that cannot end the ``<script>`` it stands in, whatever its strings hold."""
    dumped = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> Markup:
    """Return a script or a style sheet of ours, which goes into the page as it is."""
    return Markup((resources.files(__name__) / name).read_text(encoding="utf-8"))
