"""Numbers by class against slow references, and the classes that are given up."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

from acr_ray.reporting import build_report, comparison_table, open_source, open_sources, write_report
from acr_ray.reporting.cell_text import latex_text
from acr_ray.reporting.class_tables import classes_csv, worst_told
from acr_ray.reporting.classes import QUANTILES, by_class, class_changes, worst_class
from acr_ray.reporting.page import render_page
from acr_ray.reporting.page.by_class import MOST_DRAWN
from acr_ray.reporting.summary import summary
from acr_ray.reporting.tables import csv_table, latex_table, markdown_table
from acr_ray.storage import Folder
from tests.reporting.browser import framed, rendered
from tests.reporting.making import certificates, cifar, tsv

RADII = (0.0, 0.25, 0.5)


def slow(source, label, radii):
    """One class's numbers, image by image."""
    rows = source.rows
    of = [i for i in range(rows.label.size) if rows.label[i] == label]
    p = sorted(-1.0 if np.isnan(rows.p_a[i]) else rows.p_a[i] for i in of)
    reached = []
    for q in QUANTILES:
        # The smallest p_A that at least q of the images do not exceed.
        value = next(v for v in p if sum(w <= v for w in p) >= q * len(p) - 1e-9)
        reached.append(value)
    held = [rows.radius[i] if rows.predicted[i] == label else -1.0 for i in of]
    return {
        "images": len(of),
        "hard": sum(v < 0.5 for v in p) / len(of),
        "p_a": reached,
        "accuracy": [sum(r >= radius for r in held) / len(of) for radius in radii],
    }


@pytest.mark.parametrize("kind", ["certificates", "tsv"])
def test_by_class_equals_a_slow_reference(tmp_path, kind):
    rng = np.random.default_rng(3)
    labels = rng.choice([1, 4, 7], 90, p=[0.6, 0.3, 0.1])
    counts = rng.binomial(1000, rng.beta(2, 0.7, 90))
    if kind == "certificates":
        source = open_source(certificates(tmp_path / "c.parquet", counts, labels=labels, wrong=range(0, 90, 9)))
    else:
        lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
        for i, (label, count) in enumerate(zip(labels, counts, strict=True)):
            predict = label if count > 600 else -1 if count > 300 else label + 1
            radius = 0.0 if predict < 0 else round(0.2 + i / 100, 3) % 0.9
            lines.append(f"{i}\t{label}\t{predict}\t{radius}\t{int(predict == label)}\t0:00:01")
        source = open_source(tsv(tmp_path, lines))
    found = by_class(source, RADII)
    assert [c.label for c in found] == [1, 4, 7]
    for c in found:
        wanted = slow(source, c.label, RADII)
        assert (c.images, c.hard_share) == (wanted["images"], wanted["hard"])
        assert [-1.0 if np.isnan(p) else p for p in c.p_a] == wanted["p_a"]
        assert list(c.certified_accuracy) == wanted["accuracy"] and c.accuracy_at_0 == wanted["accuracy"][0]
    # The classes make up the whole.
    whole = build_report([source], RADII).rows[0]
    assert sum(c.images * c.hard_share for c in found) / 90 == pytest.approx(whole.hard_share)
    assert sum(c.images * c.certified_accuracy[1] for c in found) / 90 == pytest.approx(whole.certified_accuracy[1])
    assert all((c.p_a_mean is None) == any(np.isnan(source.rows.p_a[source.rows.label == c.label])) for c in found)


def test_the_worst_class_has_the_lowest_accuracy_and_of_equals_most_hard_images(tmp_path):
    labels = [0, 0, 1, 1, 2, 2]
    found = by_class(
        open_source(certificates(tmp_path / "c.parquet", [990, 990, 520, 990, 300, 990], labels=labels)), ()
    )
    assert [c.accuracy_at_0 for c in found] == [1.0, 0.5, 0.5]  # 520 of 1000 is no certificate
    worst = worst_class(found)
    assert worst is not None and worst.label == 2 and worst.hard_share == 0.5


def given_up(tmp_path):
    """The second source is better everywhere but in class 2, most of whose images it gives up."""
    labels = np.arange(300) % 3
    before = certificates(tmp_path / "before.parquet", [900] * 300, labels=labels)
    counts = np.where(labels == 2, np.where(np.arange(300) < 270, 300, 900), 980)
    return open_sources(
        [("plain", before), ("recipe", certificates(tmp_path / "after.parquet", counts, labels=labels))]
    )


def test_the_verdict_names_the_classes_that_are_given_up(tmp_path):
    report = build_report(given_up(tmp_path), RADII)
    told = (
        "recipe gives up class 2: 90 % of its images are hard, 0 % before (100 % of the growth in hard images falls on"
        " it); classes with most images hard: 0 before, 1 now, of 3."
    )
    assert told in report.verdicts[0]
    held = summary(report)["comparisons"][0]
    assert held["classes_given_up"] == [2] and held["hard_by_class"]["2"]["growth_share"] == 1.0
    assert held["hard_by_class"]["2"]["accuracy_at_0_after"] == pytest.approx(0.1)


def test_a_class_is_given_up_only_if_most_of_it_goes_and_not_by_chance():
    label = np.repeat([0, 1], [40, 4])
    none = np.zeros(44, dtype=bool)
    hard = none.copy()
    hard[:21], hard[40:43] = True, True  # 21 of 40, 3 of 4: the second may be chance
    first, second = sorted(class_changes(label, (none, hard), (~none, ~hard)), key=lambda c: c.label)
    assert first.given_up and not second.given_up and second.hard_after == 0.75
    assert (first.growth_share, second.growth_share) == (21 / 24, 3 / 24)
    hard[20] = False  # 20 of 40 is not most
    assert not any(c.given_up for c in class_changes(label, (none, hard), (~none, ~hard)))
    assert not any(c.given_up for c in class_changes(label, (hard, hard), (~hard, ~hard)))


def test_growth_is_shared_among_the_classes_that_grow():
    label = np.repeat([0, 1, 2], 10)
    before, after = np.zeros(30, dtype=bool), np.zeros(30, dtype=bool)
    before[20:24] = True  # class 2 gets better
    after[:6], after[10:12] = True, True
    changes = {c.label: c.growth_share for c in class_changes(label, (before, after), (~before, ~after))}
    assert changes == {0: 0.75, 1: 0.25, 2: 0.0}


def test_every_table_has_the_worst_class(tmp_path):
    report = build_report(given_up(tmp_path), RADII)
    told = worst_told(report)
    assert told == ("Worst class: plain: 0 (100.0 % at r = 0, 0.0 % hard); recipe: 2 (10.0 % at r = 0, 90.0 % hard).")
    assert told in comparison_table(report) and told in markdown_table(report)
    assert f"% {latex_text(told)}" in latex_table(report)
    rows = list(csv.DictReader(io.StringIO(csv_table(report))))
    assert (rows[1]["worst_class"], float(rows[1]["worst_class_hard_share"])) == ("2", 0.9)
    assert (
        csv_table(report)
        .splitlines()[0]
        .endswith(",certificate,worst_class,worst_class_accuracy_at_0,worst_class_hard_share")
    )
    held = summary(report)["sources"][1]
    assert held["worst_class"]["class"] == 2 and held["classes"]["2"]["certified_accuracy"]["0"] == pytest.approx(0.1)
    lines = list(csv.DictReader(io.StringIO(classes_csv(report))))
    assert [(line["name"], line["class"]) for line in lines] == [(n, c) for n in ("plain", "recipe") for c in "012"]
    assert float(lines[5]["hard_share"]) == 0.9 and float(lines[5]["p_a_quantile_0.5"]) == 0.3


def test_names_come_from_the_run_and_are_left_out_if_they_are_numbers(tmp_path):
    def named(names):
        about = {"class_names": names}
        return open_source(certificates(tmp_path / "c.parquet", [900, 300, 900], labels=[0, 1, 2], summary=about))

    report = build_report([named(["cat", "<b>dog</b>", "2"])], RADII)
    assert [c.shown for c in report.rows[0].classes] == ["0 (cat)", "1 (<b>dog</b>)", "2"]
    page = render_page(report)
    assert "<b>dog" not in page and "1 (&lt;b&gt;dog&lt;/b&gt;)" in page
    assert [c.shown for c in build_report([named(["cat"])], RADII).rows[0].classes] == ["0 (cat)", "1", "2"]
    nameless = open_source(certificates(tmp_path / "d.parquet", [900, 300, 900], labels=[0, 1, 2]))
    assert build_report([nameless, named(["cat"])], RADII).rows[0].classes[0].name == "cat"


def test_of_many_classes_the_page_draws_the_worst_and_says_how_many_are_left_out(tmp_path):
    classes = MOST_DRAWN + 7
    labels = np.repeat(np.arange(classes), 4)
    counts = np.where(labels == 33, 300, 990)
    report = build_report([open_source(certificates(tmp_path / "c.parquet", counts, labels=labels))], RADII)
    page = render_page(report)
    drawn = re.findall(r'<li data-class="(\d+)">', page)
    assert len(drawn) == MOST_DRAWN and drawn[0] == "33"
    assert "7 classes are left out here; classes.csv and summary.json have all." in page
    assert len(summary(report)["sources"][0]["classes"]) == classes
    assert "the worst 10; 37 more in classes.csv" in comparison_table(report)


def test_one_class_alone_and_a_curve_have_no_classes_to_tell_apart(tmp_path):
    report = build_report([open_source(certificates(tmp_path / "c.parquet", [900, 300], labels=[0, 0]))], RADII)
    assert report.rows[0].worst_class is None and worst_told(report) == "" and 'id="classes"' not in render_page(report)
    curve = tmp_path / "gaussian_0.25.csv"
    curve.write_text("x,y\n0.5,0.8\n0.9,0.5\n")
    of_curve = build_report([open_source(str(curve))], RADII)
    assert of_curve.rows[0].classes == () and summary(of_curve)["sources"][0]["worst_class"] is None
    assert len(classes_csv(of_curve).splitlines()) == 1 and 'id="classes"' not in render_page(of_curve)


def test_the_released_files_lose_birds_and_cats():
    report = build_report(open_sources([cifar("gaussian"), cifar("ours")]))
    before, after = ({c.label: c for c in row.classes} for row in report.rows)
    shown = {label: [round(100 * of[label].accuracy_at_0) for of in (before, after)] for label in (2, 3)}
    assert shown == {2: [72, 60], 3: [65, 61]}
    text = comparison_table(report)
    assert re.search(r"^2 +72\.2 \(27\.8\) +59\.7 \(40\.3\)$", text, re.M)
    assert re.search(r"^3 +65\.2 \(34\.8\) +60\.9 \(39\.1\)$", text, re.M)
    assert report.rows[1].worst_class.label == 2


@pytest.mark.browser
def test_the_pages_classes_are_those_of_the_summary_and_sort(tmp_path):
    write_report(given_up(tmp_path), Folder(tmp_path / "out"), radii=RADII)
    act = "document.querySelector('#classes-table thead th:nth-child(4) button').click();"
    dom = rendered(tmp_path / "out" / "report.html", tmp_path, act)
    table = re.search(r'<table id="classes-table".*?</table>', dom, re.S)[0]
    found = {}
    for label, name, cells in re.findall(r'<tr data-class="(\d+)" data-source="(\w+)">(.*?)</tr>', table, re.S):
        values = re.findall(r'data-field="(\w+)"(?: data-radius="([\d.]+)")? data-value="([-\d.]+)"', cells)
        found[name, label] = {(field, radius): float(value) for field, radius, value in values}
    held = json.loads((tmp_path / "out" / "summary.json").read_text())
    wanted = {}
    for source in held["sources"]:
        for label, c in source["classes"].items():
            accuracy = {("accuracy", f"{float(r)}"): v for r, v in c["certified_accuracy"].items()}
            half, most = c["p_a_quantile"]["0.5"], c["p_a_quantile"]["0.1"]
            wanted[source["name"], label] = {
                ("images", ""): c["images"],
                ("hard", ""): c["hard_share"],
                ("half", ""): half,
                ("most", ""): most,
                **accuracy,
            }
    assert found == wanted
    assert next(iter(found)) == ("recipe", "2") and len(re.findall(r"<li data-class", dom)) == 3
    assert "class 2: 90.0" in dom


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1400])
def test_the_pictures_of_classes_fit(tmp_path, width):
    write_report(given_up(tmp_path), Folder(tmp_path / "out"), radii=RADII)
    probe = "Math.max(...[...doc.querySelectorAll('.multiples svg')].map((e) => e.getBoundingClientRect().right))"
    dom = rendered(framed(tmp_path / "out" / "report.html", tmp_path, width, probe), tmp_path)
    assert 'data-overflow="0"' in dom
    assert 50 < float(re.search(r'data-probe="([\d.]+)"', dom)[1]) <= width
