"""Nothing on the page is clipped: a table that has room is shown whole, and a phone's page does not scroll sideways."""

from __future__ import annotations

import re

import pytest

from acr_ray.reporting import write_report
from acr_ray.storage import Folder
from tests.reporting.browser import framed, rendered
from tests.reporting.test_kinds import BLIND, CERTAIN, SPREAD, source

NINE = tuple(k / 4 for k in range(9))
#: By how many pixels the tables that are open are wider than what is seen of them.
HIDDEN = "Math.max(...[...doc.querySelectorAll('.wide')].map((e) => e.scrollWidth - e.clientWidth))"
OPEN = "(doc.querySelectorAll('details').forEach((e) => (e.open = true)), {})"
#: Whether each table that is wider than its frame can be scrolled to its last column.
REACHED = """(() => { let worst = 0; for (const e of doc.querySelectorAll('.wide')) { e.scrollLeft = 1e6;
  const cells = [...e.querySelectorAll('th, td')].map((c) => c.getBoundingClientRect().right);
  worst = Math.max(worst, ...cells); } return Math.round(worst); })()"""


@pytest.fixture
def page(tmp_path):
    def write(radii):
        """A page with both kinds of certificates, classes, and a choice for each radius."""
        sources = [
            source("digits-gaussian", [CERTAIN] * 20 + [BLIND] * 40),
            source("digits-with-all-three-parts", [SPREAD] * 60),
        ]
        write_report(sources, Folder(tmp_path / "out"), radii=radii, best=True)
        return tmp_path / "out" / "report.html"

    return write


@pytest.mark.browser
@pytest.mark.parametrize("count", [7, 9])
def test_at_1400_pixels_every_column_of_every_table_is_seen(page, tmp_path, count):
    outer = framed(page(NINE[:count]), tmp_path, 1400, OPEN.format(HIDDEN))
    dom = rendered(outer, tmp_path)
    assert int(re.search(r'data-probe="(-?\d+)"', dom)[1]) <= 0 and 'data-overflow="0"' in dom


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1024])
def test_narrower_windows_scroll_tables_not_the_page(page, tmp_path, width):
    outer = framed(page(NINE), tmp_path, width, OPEN.format(REACHED))
    dom = rendered(outer, tmp_path)
    assert 'data-overflow="0"' in dom
    assert 100 < int(re.search(r'data-probe="(\d+)"', dom)[1]) <= width
