"""The page: escaped, self-contained, small, and its numbers are those of summary.json."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from acr_ray.reporting import open_sources, write_report
from acr_ray.reporting.budget import at_budget
from acr_ray.reporting.cell_text import acr_text, percent_text
from acr_ray.reporting.page.data import radius_grid, tenths
from acr_ray.reporting.page.sections import TABLE_P_A
from acr_ray.storage import Folder
from tests.reporting.browser import Cells, framed, rendered
from tests.reporting.making import certificates

NASTY = "</script><img src=x onerror=\"document.title='owned'\">'&{{data}}<!--data-->"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report on two runs, one with a nasty name and one partial, and its folder. Not to be written to."""
    tmp_path = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(2)
    p = rng.beta(2, 0.4, 150)
    better = np.clip(p + rng.normal(0.02, 0.05, 150), 0, 1)
    paths = [
        (name, certificates(tmp_path / str(k) / "certificates.parquet", rng.binomial(1000, q), summary=summary))
        for k, (name, q, summary) in enumerate(
            [("base", p, None), (NASTY, better, {"incomplete": True, "planned_images": 200})]
        )
    ]
    out = tmp_path / "out"
    report = write_report(paths, Folder(out), radii=(0.0, 0.1, 0.25, 0.333))
    return report, out


def page_of(out):
    return (out / "report.html").read_text()


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_texts_of_sources_are_only_text(made):
    _, out = made
    page = page_of(out)
    assert "<img src=x" not in page and page.count("</script>") == 2
    assert data_of(page)["names"][1].startswith(NASTY)
    # A placeholder within a name is left as it is, and not filled.
    assert "{{data}}" in page and "&lt;!--data--&gt;" in page and page.count('"radius_texts"') == 1


def test_the_page_needs_nothing_from_elsewhere(made):
    page = page_of(made[1])
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page.replace(NASTY, ""))
    assert not re.search(r"""url\(|@import|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg)""", page)
    assert len(page.encode()) < 3_000_000


def test_p_a_comes_first_then_accuracy_then_the_table(made):
    page = page_of(made[1])
    positions = [page.index(f'<section id="{s}"') for s in ("p_a", "accuracy", "table", "hides", "paired", "sources")]
    assert positions == sorted(positions)


def test_incomplete_stands_beside_the_name_wherever_numbers_are(made):
    page = page_of(made[1])
    assert page.count("incomplete: 150 of 200") >= 8
    assert data_of(page)["names"][1].endswith("(incomplete: 150 of 200)")


def test_the_pages_grid_gives_what_the_table_gives(made):
    report, out = made
    data = data_of(page_of(out))
    for k, row in enumerate(report.all_rows):
        own = data["budgets"][k]["own"]
        assert own["t"] == acr_text(row.acr)
        shown = [own["c"][i] if i < len(own["c"]) else 0 for i in data["chosen"]]
        assert [f"{v / 10:.1f}" for v in shown] == [percent_text(s) for s in row.certified_accuracy]
        same = data["budgets"][k][f"{row.n}/{row.alpha:g}"]
        assert same["t"] == own["t"]
    assert [data["radii"][i] for i in data["chosen"]] == list(report.radii)
    assert radius_grid(report, 1000, 0.001)[-1] >= report.sources[0].ceiling


def test_the_distribution_is_there_as_a_table_too(made):
    report, out = made
    table = re.search(r"<caption>% of images with at least this.*?</table>", page_of(out), re.S)[0]
    cells = re.findall(r"<td>(.*?)</td>", table)
    assert cells[: len(TABLE_P_A)] == [percent_text((report.sources[0].rows.p_a >= p).mean()) for p in TABLE_P_A]


def test_tenths_round_as_the_tables_do():
    for share in np.random.default_rng(0).random(2000):
        assert f"{tenths(share) / 10:.1f}" == percent_text(share)


def test_summary_holds_the_contracts_fields(made):
    report, out = made
    summary = json.loads((out / "summary.json").read_text())
    assert summary["schema_version"] == 1
    for held, row in zip(summary["sources"], report.rows, strict=True):
        wanted = {"name", "images", "sigma", "n", "alpha", "acr", "certified_accuracy", "hard_share", "warnings"}
        assert wanted <= held.keys()
        assert list(held["certified_accuracy"]) == ["0", "0.1", "0.25", "0.333"]
        assert tuple(held["certified_accuracy"].values()) == row.certified_accuracy
    assert summary["sources"][1]["incomplete"] is True
    assert summary["comparisons"][0]["verdict"] == report.verdicts[0]
    files = {p.name for p in out.iterdir()}
    assert {
        "report.html",
        "summary.json",
        "table.md",
        "table.tex",
        "table.csv",
        "table.txt",
        "p_a.png",
        "budget.png",
    } <= files


def test_thumbnails_are_shown_for_images_that_got_worse_and_dropped_when_too_large(made, tmp_path):
    report, out = made[0], tmp_path / "out"
    stream = io.BytesIO()
    Image.new("L", (8, 8), 128).save(stream, format="PNG")
    worst = int(report.sources[0].rows.idx[report.comparisons[0].worse[0][0]])
    write_report(list(report.sources), Folder(out), thumbnails={worst: stream.getvalue()})
    assert f'alt="image {worst}" src="data:image/png;base64,' in page_of(out)
    write_report(list(report.sources), Folder(out), thumbnails={worst: b"x" * 3_000_000})
    assert "data:image/png" not in page_of(out) and len(page_of(out).encode()) < 3_000_000


def test_one_source_alone_has_a_report(tmp_path):
    path = certificates(tmp_path / "certificates.parquet", [900, 100, 1000])
    report = write_report([f"only={path}"], Folder(tmp_path / "out"), formats=("png", "svg", "pdf"))
    assert report.comparisons == () and 'id="paired"' not in page_of(tmp_path / "out")
    assert (tmp_path / "out" / "p_a.svg").read_bytes()[:5] == b"<?xml"
    for picture in (tmp_path / "out").glob("*.pdf"):
        content = picture.read_bytes()
        assert content[:4] == b"%PDF" and b"/Type0" in content
        assert b"/Type3" not in content, "journals refuse bitmap-like Type 3 fonts"
    assert (tmp_path / "out" / "p_a.pdf").is_file()


def test_nothing_certified_anywhere_is_no_error(tmp_path):
    paths = [(n, certificates(tmp_path / n / "certificates.parquet", [0, 0, 3, 1])) for n in ("a", "b")]
    report = write_report(paths, Folder(tmp_path / "out"))
    assert [row.acr for row in report.rows] == [0.0, 0.0] and report.rows[0].hard_share == 1.0
    assert open_sources(paths)[0].images == 4


@pytest.mark.browser
def test_the_rendered_page_shows_the_numbers_of_the_summary(made, tmp_path):
    _, out = made
    dom = rendered(out / "report.html", tmp_path)
    assert 'data-ready="yes"' in dom and "owned" not in re.search(r"<title>.*?</title>", dom, re.S)[0].split("=")[0]
    summary = json.loads((out / "summary.json").read_text())
    rows = Cells(dom).rows
    assert list(rows) == [s["name"] for s in summary["sources"]] + ["constant class"]
    for held in [*summary["sources"], summary["constant"]]:
        cells = rows[held["name"]]
        assert [c[3] for c in cells if c[0] == "acr"] == [acr_text(held["acr"])]
        assert [c[2] for c in cells if c[0] == "acr"] == [held["acr"]]
        shown = {float(c[1]): c[3] for c in cells if c[0] == "accuracy"}
        assert shown == {float(r): percent_text(s) for r, s in held["certified_accuracy"].items()}
        assert [c[3] for c in cells if c[0] == "hard"] == [percent_text(held["hard_share"])]


@pytest.mark.browser
def test_controls_change_the_table_to_what_python_computes(made, tmp_path):
    report, out = made
    act = """
      byId("n").value = "10000"; byId("n").dispatchEvent(new Event("change", {bubbles: true}));
      byId("radii").value = "0.05, 0.3"; byId("columns").dispatchEvent(new Event("submit", {cancelable: true}));
      document.querySelector("#numbers [data-column=hard] button").click();
      charts.p_a.svg.dispatchEvent(new KeyboardEvent("keydown", {key: "End"}));
    """
    dom = rendered(out / "report.html", tmp_path, act)
    other = write_report(list(report.sources), Folder(tmp_path / "other"), radii=(0.05, 0.3))
    rows = Cells(dom).rows
    for source in other.sources:
        at = at_budget(source.distribution, source.sigma, 10_000, source.alpha)
        cells = rows[source.name]
        assert [c[3] for c in cells if c[0] == "acr"] == [acr_text(at.acr)]
        shown = [c[3] for c in cells if c[0] == "accuracy"]
        assert shown == [percent_text(s) for s in at.certified_accuracy([0.05, 0.3])]
    hard = [c[2] for cells in rows.values() for c in cells if c[0] == "hard"]
    assert hard == sorted(hard, reverse=True) and 'aria-sort="descending"' in dom
    at_one = percent_text(float(report.sources[0].distribution.at_least(1.0)))
    assert re.search(rf'aria-valuetext="p_A 1: base {re.escape(at_one)} %', dom)
    assert "too high rather than too low" in dom
    for k, source in enumerate(report.sources):
        interval = data_of(page_of(out))["budgets"][k][f"10000/{source.alpha:g}"]["i"]
        assert f"<small>{interval}</small>" in dom


PRINTED = """(() => { const sheet = doc.styleSheets[0], added = [];
  for (const rule of sheet.cssRules) if (rule.media?.mediaText === "print") added.push(...rule.cssRules);
  for (const rule of added) sheet.insertRule(rule.cssText, sheet.cssRules.length); return 0; })(),"""
RIGHT = "Math.max(...[...doc.querySelectorAll('{}')].map((e) => e.getBoundingClientRect().right))"


@pytest.mark.browser
@pytest.mark.parametrize(
    "width, cells, before",
    [
        (1400, "#numbers td, #numbers th", ""),
        (390, "#numbers [data-field=hard], #numbers [data-column=hard]", ""),
        (718, "#numbers td, #numbers th", PRINTED),  # A4 less its margins
    ],
)
def test_the_hard_column_is_seen_beside_seven_radii(tmp_path, width, cells, before):
    paths = [(n, certificates(tmp_path / f"{n}.parquet", [900, 400, 1000] * 9)) for n in ("digits-gaussian", "digits")]
    write_report(paths, Folder(tmp_path / "out"), radii=(0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5))
    outer = framed(tmp_path / "out" / "report.html", tmp_path, width, f"({before}{RIGHT.format(cells)})")
    right = float(re.search(r'data-probe="([\d.]+)"', rendered(outer, tmp_path))[1])
    assert 100 < right <= width


def test_the_heads_of_tables_say_what_they_are(made):
    page = page_of(made[1])
    heads = re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", page)
    plain = [re.sub(r"<.*?>", "", h).strip() for h in heads]
    assert "r = 0.25 (%)" in plain and "≥ 0.25" in plain
    assert not [h for h in plain if re.fullmatch(r"[\d.]+( \(%\))?", h)]
    assert "ACR from images with p<sub>A</sub>" in page
    first = next(iter(Cells(page).rows.values()))
    assert [cell[0] for cell in first[:3]] == ["acr", "hard", "accuracy"]


@pytest.mark.browser
def test_the_page_does_not_scroll_sideways_on_a_phone(made, tmp_path):
    outer = framed(made[1] / "report.html", tmp_path, 360)
    assert 'data-overflow="0"' in rendered(outer, tmp_path)
