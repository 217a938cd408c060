"""Runs whose draws were stopped by what they showed, in one report with others: only what both can say is compared."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy.special import ndtr

from acr_ray.reporting import build_report, comparison_table, open_sources
from acr_ray.reporting.figures import figures
from acr_ray.reporting.page import render_page
from acr_ray.reporting.page.data import page_data
from acr_ray.reporting.pairing import common_grid
from acr_ray.reporting.paper import layout_markdown, paper_layout
from acr_ray.reporting.summary import summary
from acr_ray.reporting.tables import csv_table, latex_table, markdown_table
from acr_ray.settings import CertifySettings
from acr_ray.smoothing.bounds import radius
from acr_ray.smoothing.stopping import rule_for
from tests.reporting.making import certificates

SIGMA, ALPHA, N, IMAGES = 0.5, 0.001, 10_000, 400
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """One classifier, certified with fixed N and with two rules that stop early: the same p_A, other draws."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(3)
    p, model = rng.beta(4, 0.7, IMAGES), {"model_sha256": ["ab" * 32] * IMAGES}
    about = {"sigma": SIGMA, "alpha": ALPHA}
    found = {"fixed": certificates(folder / "fixed.parquet", rng.binomial(N, p), n=N, change=model, **about)}
    for stopping in ("radii", "width"):
        settings = CertifySettings(sigma=SIGMA, dataset="digits", n=N, alpha=ALPHA, radii=GRID, stopping=stopping)
        rule = rule_for(settings)
        path = np.cumsum(rng.binomial(np.diff(rule.looks, prepend=0), p[:, None]), axis=1)
        stops, claims = rule.judge_all(path, 100, rng.binomial(100, p))
        last, row = stops.argmax(axis=1), np.arange(IMAGES)
        columns = {
            "n": np.array(rule.looks)[last],
            "count_top": path[row, last],
            "count_label": path[row, last],
            "bound": [rule.name] * IMAGES,
            "p_lower": claims[row, last],
            "outcome": np.where(claims[row, last] > 0.5, "certified", "abstained"),
        }
        said = {"planned_images": IMAGES, "n": N} | ({"radii": GRID} if stopping == "radii" else {})
        file = folder / f"{stopping}.parquet"
        found[stopping] = certificates(file, np.ones(IMAGES, int), n=1, change=columns | model, summary=said, **about)
    return found


def report_of(paths, *names, **options):
    return build_report(open_sources([(name, paths[name]) for name in names]), **options)


def test_acr_at_another_budget_is_not_derived_from_draws_that_stopped_early(paths):
    for stopping in ("radii", "width"):
        report = report_of(paths, "fixed", stopping)
        assert report.common_budget is None and report.rows[1].common_acr is None
        page = page_data(report)
        assert set(page["budgets"][1]) == {"own"} and len(page["budgets"][0]) > 30
        assert "stopped early" not in report.rows[0].name
        assert f"Not derived, for their draws were stopped by what they showed: {stopping}." in render_page(report)
    assert figures(report)["budget.png"]


def test_a_common_budget_of_others_leaves_them_out(paths, tmp_path):
    paths = paths | {"small": certificates(tmp_path / "small.parquet", [900] * IMAGES, sigma=SIGMA)}
    report = report_of(paths, "fixed", "radii", "small")
    assert report.common_budget == (1000, ALPHA)
    assert [row.common_acr is None for row in report.rows] == [False, True, False]
    lines = comparison_table(report).splitlines()
    assert [len(re.split(r"  +", line)) for line in lines[2:5]] == [len(re.split(r"  +", lines[0]))] * 3
    assert re.split(r"  +", lines[3])[2] == "–" and '<td data-field="common" data-value="-1">–</td>' in render_page(
        report
    )


def test_a_lower_acr_says_so_wherever_it_stands(paths):
    report = report_of(paths, "fixed", "radii", radii=[0.0, 0.3, 0.5])
    row = report.rows[1]
    shown = f"≥ {np.floor(row.acr * 1e4) / 1e4:.4f}"
    assert (report.rows[0].acr_is_lower, row.acr_is_lower, row.lower_at) == (False, True, (False, True, False))
    for text in (comparison_table(report), markdown_table(report), render_page(report)):
        assert text.count(shown) >= 1 and "≥: a lower value" in text
    assert shown.replace("≥", r"$\geq$") in latex_table(report)
    told = summary(report)["sources"]
    assert [s["acr_is_lower"] for s in told] == [False, True]
    assert [s["certified_accuracy_is_lower"] for s in told] == [[], ["0.3"]]
    assert "acr_is_lower" in csv_table(report).splitlines()[0]
    assert page_data(report)["budgets"][1]["own"]["t"] == shown
    line = next(r for r in layout_markdown(paper_layout(report)).splitlines() if "| radii |" in r)
    assert f"| ≥ {row.acr:.3f} |" in line and "**≥" not in line


def test_one_classifier_under_two_rules_has_not_got_worse(paths):
    report = report_of(paths, "fixed", "radii")
    c = report.comparisons[0]
    assert c.same_model and c.worse_count == 0 and "same weights" in report.verdicts[0]
    assert "images got worse" not in render_page(report)
    fixed, stopped = (s.rows.counted_radius for s in report.sources)
    assert (stopped < fixed).sum() > IMAGES / 2  # what a picture of the radii as they stand would call worse


def test_grid_radii_are_paired_at_the_radii_that_both_can_say(paths):
    sources = open_sources([("fixed", paths["fixed"]), ("radii", paths["radii"])])
    c = build_report(sources).comparisons[0]
    assert c.grid == GRID
    held = sources[0].rows.counted_radius
    floored = np.array([max((r for r in GRID if r <= v + 1e-12), default=0.0) for v in held])
    assert c.acr_before == pytest.approx(floored.mean()) and c.acr_before < held.mean()
    assert c.acr_after == pytest.approx(sources[1].rows.counted_radius.mean(), abs=1e-6)
    raw = sources[1].rows.counted_radius.mean() - held.mean()
    assert abs(c.gain) < abs(raw) / 4  # the same p_A: what is left is chance, and what the rule's looks cost
    assert sum(b.gain for b in c.bins) == pytest.approx(c.gain)


def test_two_grids_are_paired_where_they_agree_and_not_where_they_do_not(paths, tmp_path):
    def on(grid, name):
        """A run that certifies the largest radius of its grid of every image."""
        p = float(ndtr(max(grid) / SIGMA)) + 1e-12
        columns = {"bound": ["sequential-radii/1"] * 3, "p_lower": [p] * 3, "outcome": ["certified"] * 3}
        assert radius(p, SIGMA) >= max(grid)
        said = {"radii": list(grid), "planned_images": 3}
        return certificates(tmp_path / f"{name}.parquet", [1000] * 3, sigma=SIGMA, change=columns, summary=said)

    held = {"a": on((0.25, 0.5), "a"), "b": on((0.25, 0.75), "b"), "c": on((0.1, 0.3), "c")}
    a, b, c = open_sources(list(held.items()))
    assert common_grid(a, b) == (0.25,) and common_grid(a, c) == ()
    report = build_report([a, b, c])
    assert [x.name for x in report.comparisons] == ["b"]
    assert report.comparisons[0].gain == 0.0 and report.comparisons[0].acr_before == 0.25
    assert "a and c share no radius that both can say: not paired" in report.warnings
    assert report.radii == (0.1, 0.25, 0.3, 0.5, 0.75)
    assert report.constant.acr_is_lower and report.constant.acr == pytest.approx(0.5 / 3)


def test_the_interval_in_brackets_is_of_the_number_beside_it(paths):
    """At every budget on the page: what a bootstrap of that budget's radii gives, around that budget's ACR."""
    report = report_of(paths, "fixed", "radii")
    budgets = page_data(report)["budgets"][0]
    own = budgets["own"]["i"]
    assert budgets[f"{N}/{ALPHA:g}"]["i"] == own
    for key in ("100/0.001", "1000/0.05", "1000000/0.0001"):
        low, high = json.loads(budgets[key]["i"])
        assert low < budgets[key]["v"] < high and budgets[key]["i"] != own
    assert "i" not in page_data(report)["budgets"][2]["own"]  # the constant class has none
