"""Tables as text."""

from __future__ import annotations

import csv
import io

import pytest

from acr_ray.reporting import build_report, comparison_table, open_sources
from acr_ray.reporting.cell_text import acr_text, percent_text, radius_text
from acr_ray.reporting.paper import ablation_layout, layout_latex, layout_markdown, paper_layout
from acr_ray.reporting.tables import csv_table, latex_table, markdown_table
from tests.reporting.making import certificates, cifar


def report_of(tmp_path, names, **options):
    return build_report(
        open_sources(
            [
                (n, certificates(tmp_path / str(k) / "certificates.parquet", [900, 600, 400, 950], **options))
                for k, n in enumerate(names)
            ]
        ),
        radii=(0.0, 0.25),
    )


def test_rounding():
    assert acr_text(0.48669) == "0.4866" and acr_text(0.99999) == "0.9999"
    assert percent_text(0.6676) == "66.8" and percent_text(1.0) == "100.0"
    assert [radius_text(r) for r in (0.0, 0.25, 1.5, 0.125, 2.0, 1 / 3)] == [
        "0.00",
        "0.25",
        "1.50",
        "0.125",
        "2.00",
        "0.333333",
    ]


def test_plain_table_lines_up_and_ends_with_the_constant_class():
    report = build_report(open_sources([cifar("gaussian"), cifar("ours")]))
    lines = comparison_table(report).splitlines()
    assert len({len(line) for line in lines[:5]}) == 1 and lines[5] == "Certificates: one-class."
    assert lines[6].startswith("Worst class: gaussian: 3 (65.2 %") and lines[7] == ""
    assert lines[2].split() == ["gaussian", "0.4866", "80.4", "66.8", "50.5", "32.7", "19.6"]
    assert lines[4].split() == ["constant", "class", "0.0952", "10.0", "10.0", "10.0", "10.0", "90.0"]


def test_incomplete_is_in_every_table(tmp_path):
    report = report_of(tmp_path, ["a"], summary={"incomplete": True, "planned_images": 9})
    tables = (comparison_table(report), markdown_table(report), latex_table(report))
    layouts = (layout_markdown(paper_layout(report)), layout_latex(paper_layout(report)))
    for text in (*tables, *layouts, layout_markdown(ablation_layout(report))):
        assert "(incomplete: 4 of 9)" in text.replace("\\", "")
    assert next(csv.DictReader(io.StringIO(csv_table(report))))["incomplete"] == "1"


def test_names_cannot_break_a_table(tmp_path):
    report = report_of(tmp_path, ["a|b\n*c*", "x & y_z % \\end{tabular} $"])
    text = markdown_table(report)
    assert "a\\|b \\*c\\*" in text and "x &amp; y\\_z % " in text
    columns = [line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")]
    assert columns == [6] * 5 + [4] * 5  # the table, and that of the three classes
    latex = latex_table(report)
    assert r"x \& y\_z \% \textbackslash{}end\{tabular\} \$" in latex and latex.count(r"\end{tabular}") == 1
    assert len(comparison_table(report).splitlines()) == 7 + 7  # the same two


def test_csv_holds_exact_numbers(tmp_path):
    report = report_of(tmp_path, ["a"])
    row = next(csv.DictReader(io.StringIO(csv_table(report))))
    assert float(row["acr"]) == report.rows[0].acr
    assert float(row["certified_accuracy_0.25"]) == report.rows[0].certified_accuracy[1]


def test_paper_layout_prints_the_published_row():
    report = build_report(open_sources([cifar("gaussian"), cifar("ours")]))
    assert "| 0.25 | gaussian | 0.487 | **80.4** | 66.8 | 50.5 | 32.7 | **19.6** |" in layout_markdown(
        paper_layout(report)
    )
    latex = layout_latex(paper_layout(report))
    assert r"0.25 & ours & 0.564 & 76.6 & \textbf{69.0} & \textbf{59.3} & \textbf{48.3} & 23.4 \\" in latex


@pytest.mark.parametrize("given_up, best", [(0, True), (3, False)])
def test_the_paper_layout_does_not_just_print_the_best_acr_bold(tmp_path, given_up, best):
    """The highest ACR is marked only where it was not bought with images that were given up."""
    base = certificates(tmp_path / "a.parquet", [900] * 10)
    wide = certificates(tmp_path / "b.parquet", [300] * given_up + [1000] * (10 - given_up))
    layout = paper_layout(build_report(open_sources([("base", base), ("wide", wide)]), radii=(0.0,)))
    assert layout.header == ["sigma", "method", "ACR", "r = 0.00", "hard"]
    acr, hard = ([line[k] for line in layout.groups[0]] for k in (2, 4))
    assert acr[1].text > acr[0].text and [c.best for c in acr] == [False, best]
    assert hard[0].text == "0.0" and hard[0].best and hard[1].best == best


def test_paper_layout_groups_by_sigma(tmp_path):
    paths = [certificates(tmp_path / f"{s}" / "certificates.parquet", [900, 600], sigma=s) for s in (0.5, 0.25)]
    report = build_report(open_sources([("gaussian", p) for p in paths]), radii=(0.0,))
    groups = paper_layout(report).groups
    assert [[c.text for c in group[0][:2]] for group in groups] == [["0.25", "gaussian"], ["0.5", "gaussian"]]


def test_ablation_marks_the_parts_that_are_on(tmp_path):
    report = report_of(tmp_path, ["gaussian", "discard", "discard+attack"])
    layout = ablation_layout(report)
    assert layout.header[:2] == ["discard", "attack"]
    assert [[c.text for c in line[:2]] for line in layout.groups[0]] == [["", ""], ["yes", ""], ["yes", "yes"]]


@pytest.mark.parametrize("layout", [paper_layout, ablation_layout])
def test_layouts_are_rectangular(tmp_path, layout):
    made = layout(report_of(tmp_path, ["a", "b+c"]))
    assert {len(line) for group in made.groups for line in group} == {len(made.header)}
