"""Certificates of runs that stop early are read back, checked against their counts, and described rightly."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from acr_ray.reporting import build_report, open_source, open_sources
from acr_ray.reporting.metrics import abstained_share, acr, certified_accuracy
from acr_ray.reporting.summary import summary
from acr_ray.settings import CertifySettings
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.bounds import lower_bound, radius, randomized_lower_bound
from acr_ray.smoothing.rules import RADII, RANDOMIZED, WIDTH
from acr_ray.smoothing.stopping import rule_for
from jobs.benchmarks.simulate import simulate
from tests.reporting.making import certificates

SIGMA, ALPHA, N = 0.25, 0.001, 20_000
GRID = (0.0, 0.25, 0.5)


def stopped(path, stopping: str, images: int = 300, wrong: int = 0, **change) -> tuple[str, dict[str, np.ndarray]]:
    """Writes what a run of a rule would have left; the first ``wrong`` images end with their selection draws."""
    settings = CertifySettings(sigma=SIGMA, dataset="digits", n=N, alpha=ALPHA, radii=GRID, stopping=stopping)
    rule, rng = rule_for(settings), np.random.default_rng(7)
    p = rng.beta(4, 0.7, images)
    counts0 = rng.binomial(100, p)
    paths = np.cumsum(rng.binomial(np.diff(rule.looks, prepend=0), p[:, None]), axis=1)
    stops, claims = rule.judge_all(paths, 100, counts0)
    last, row = stops.argmax(axis=1), np.arange(images)
    is_wrong = row < wrong
    n = np.where(is_wrong, 100, np.array(rule.looks)[last])
    top = np.where(is_wrong, counts0, paths[row, last])
    p_lower = np.where(is_wrong, 0.0, claims[row, last])
    columns = {
        "n": n,
        "count_top": top,
        "count_label": np.where(is_wrong, n - top, top),
        "bound": [rule.name] * images,
        "p_lower": p_lower,
        "stopping": [stopping] * images,
        "outcome": np.where(is_wrong, "stopped_wrong", np.where(p_lower > 0.5, "certified", "abstained")),
    }
    about = {"incomplete": False, "planned_images": images} | ({"radii": GRID} if stopping == "radii" else {})
    rows = {"wrong": range(wrong), "n": 1, "alpha": ALPHA, "sigma": SIGMA, "summary": about}
    return certificates(path, np.ones(images, int), change={**columns, **change}, **rows), columns


def test_radii_run_reads_back(tmp_path):
    path, held = stopped(tmp_path / "certificates.parquet", "radii", wrong=20)
    (tmp_path / "summary.json").write_text(json.dumps({"n": N, "stopping": "radii"}))
    source = open_source(path)
    expected = radius(held["p_lower"], SIGMA)
    np.testing.assert_array_equal(source.rows.radius, expected)
    assert set(np.round(expected, 12)) == {0.0, 0.25, 0.5} and np.all((expected >= 0.5) == (expected > 0.4))
    # A radius of the grid is reached, not missed by a rounding.
    right = np.arange(300) >= 20
    shares = [float((right & (held["p_lower"] > 0.5) & (expected >= r)).mean()) for r in GRID]
    assert certified_accuracy(source, GRID) == shares and shares[0] > shares[1] > shares[2] > 0
    assert acr(source) == pytest.approx(expected.mean())
    assert source.n == N and source.bound == RADII  # though hardly an image took them all
    assert abstained_share(source) == (held["p_lower"] == 0).mean()
    np.testing.assert_array_equal(source.rows.p_a, held["count_label"] / held["n"])
    first, biased, second = source.notes
    assert "no ACR at another N or alpha" in biased
    assert (
        "its radii (0, 0.25, 0.5)" in first
        and "not comparable" in first
        and f"to {held['n'][20:].max()} draws" in first
    )
    assert second.startswith("20 of 300 images ended with their selection draws")


def test_width_run_reads_back(tmp_path):
    path, held = stopped(tmp_path / "certificates.parquet", "width")
    source = open_source(path)
    np.testing.assert_array_equal(source.rows.radius, radius(held["p_lower"], SIGMA))
    assert source.bound == WIDTH and len(source.notes) == 2 and "a little below" in source.notes[0]


def test_randomised_run_reads_back(tmp_path):
    counts = np.array([990, 800, 1000, 500])
    p = np.array([randomized_lower_bound(int(c), 1000, ALPHA, 0.3) for c in counts])
    p = np.where(p > 0.5, p, 0.0)
    change = {"bound": [RANDOMIZED] * 4, "p_lower": p}
    source = open_source(certificates(tmp_path / "certificates.parquet", counts, change=change))
    np.testing.assert_array_equal(source.rows.radius, radius(p, SIGMA))
    assert source.rows.radius[0] > radius(lower_bound(990, 1000, ALPHA), SIGMA)
    assert "coin" in source.notes[0]


def test_fixed_run_with_the_new_columns_reads_as_without(tmp_path):
    counts = np.array([990, 800, 1000, 500])
    p = lower_bound(counts, 1000, ALPHA)
    change = {"p_lower": np.where(p > 0.5, p, 0.0), "stopping": ["fixed"] * 4}
    new = open_source(certificates(tmp_path / "new" / "certificates.parquet", counts, change=change))
    old = open_source(certificates(tmp_path / "old" / "certificates.parquet", counts))
    np.testing.assert_array_equal(new.rows.radius, old.rows.radius)
    assert new.notes == old.notes == () and new.bound == old.bound == "clopper-pearson"


def test_stopping_when_wrong_changes_no_metric_of_fixed_n(tmp_path):
    counts, wrong = np.array([990, 100, 1000, 800]), [1]
    whole = open_source(certificates(tmp_path / "a" / "certificates.parquet", counts, wrong=wrong))
    short = {
        "outcome": ["certified", "stopped_wrong", "certified", "certified"],
        "n": [1000, 100, 1000, 1000],
        "count_top": [990, 88, 1000, 800],
        "count_label": [990, 12, 1000, 800],
    }
    ended = open_source(certificates(tmp_path / "b" / "certificates.parquet", counts, wrong=wrong, change=short))
    assert acr(ended) == acr(whole)
    assert certified_accuracy(ended, GRID) == certified_accuracy(whole, GRID)
    assert ended.rows.p_a[1] == 0.12 and ended.rows.predicted[1] == -1 and ended.rows.selected[1] == 2
    assert len(ended.notes) == 1 and ended.notes[0].startswith("1 of 4 images ended")


P = float(lower_bound(990, 1000, ALPHA))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"p_lower": [P + 1e-6, 0.0, 0.76]}, "row 0: p_lower is"),
        ({"p_lower": [P, 0.0, 0.7]}, "row 2: p_lower is 0.700000000 (800 of 1000 draws), but clopper-pearson of its"),
        ({"p_lower": [P, 0.6, 0.0]}, "row 1: p_lower is 0.600000000 (500 of 1000 draws), but nothing is certified"),
        ({"bound": [RADII] * 3}, "column p_lower is missing"),
        ({"bound": [RADII] * 3, "p_lower": [0.5, 0.0, 0.6]}, "row 0: p_lower is 0.500000000"),
        ({"bound": [RADII] * 3, "p_lower": [0.9, 0.0, 1.0]}, "row 2: p_lower is 1.000000000"),
        ({"bound": [RADII] * 3, "p_lower": [0.9, 0.0, float("nan")]}, "row 2: p_lower is nan"),
        ({"bound": [RADII] * 3, "p_lower": [0.9, 0.0, None]}, "row 2: p_lower is empty"),
        (
            {"bound": [WIDTH] * 3, "p_lower": [0.9999, 0.0, 0.6]},
            "row 0: p_lower is 0.999900000 (990 of 1000 draws), more",
        ),
        (
            {"bound": [WIDTH] * 3, "p_lower": [0.9, 0.0, 0.97]},
            "row 2: p_lower is 0.970000000 (800 of 1000 draws), which",
        ),
        (
            {"bound": [RANDOMIZED] * 3, "p_lower": [0.9, 0.0, 0.6]},
            "row 0: p_lower is 0.900000000 (990 of 1000 draws), but",
        ),
        ({"bound": [RADII, RADII, WIDTH], "p_lower": [0.9, 0.0, 0.6]}, "bounds of 2 kinds"),
        ({"bound": ["sequential-radii/2"] * 3, "p_lower": [0.9, 0.0, 0.6]}, "bound is sequential-radii/2"),
        ({"outcome": ["certified", "abstained", "stopped_wrong"]}, "row 2: outcome is stopped_wrong, but the selected"),
    ],
)
def test_bounds_that_contradict_their_counts_are_refused(tmp_path, change, said):
    path = certificates(tmp_path / "certificates.parquet", [990, 500, 800], change=change)
    with pytest.raises(UserError) as caught:
        open_source(path)
    assert said in str(caught.value) and path in str(caught.value) and "\n" not in str(caught.value)


def test_sources_that_stop_differently_are_not_compared_in_silence(tmp_path):
    radii, _ = stopped(tmp_path / "radii" / "certificates.parquet", "radii")
    fixed = certificates(tmp_path / "fixed" / "certificates.parquet", np.full(300, N), n=N)
    report = build_report(open_sources([fixed, radii]), GRID)
    warning = next(w for w in report.warnings if w.startswith("bound differs"))
    assert "clopper-pearson in fixed; sequential-radii/1 in radii" in warning and "ACR of radii stopping" in warning
    assert "bound differ" in report.verdicts[0]
    told = summary(report)["sources"]
    assert any("not comparable" in note for note in told[1]["notes"]) and not told[0]["notes"]
    assert not any(w.startswith("bound differs") for w in build_report(open_sources([fixed, f"b={fixed}"])).warnings)


def test_text_of_a_sequential_run_is_refused(tmp_path):
    """p_A can't be read back from radii that are lower ends."""
    (tmp_path / "certificates.tsv").write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.25\t1\t0:00:01\n"
    )
    said = {"sigma": SIGMA, "n": N, "alpha": ALPHA}
    (tmp_path / "summary.json").write_text(json.dumps(said | {"bound": RADII}))
    with pytest.raises(UserError, match="give the certificates.parquet beside it"):
        open_source(f"{tmp_path}/certificates.tsv")
    (tmp_path / "summary.json").write_text(json.dumps(said | {"bound": "clopper-pearson"}))
    assert open_source(f"{tmp_path}/certificates.tsv").images == 1


@pytest.mark.parametrize(
    "about, said",
    [
        ({"n": 10}, None),
        ({"n": None}, None),
        ({"n": "many"}, "n = 'many'"),
        ({"radii": ["x"]}, "radii.0 = 'x'"),
        ({"planned_images": 10**30}, "planned_images"),
        ({"radii": [1e308]}, "radii.0 = 1e+308"),
    ],
)
def test_a_strange_summary_harms_nothing(tmp_path, about, said):
    path, held = stopped(tmp_path / "certificates.parquet", "radii")
    summary = {"planned_images": 300} | about
    content = certificates(tmp_path / "strange.parquet", np.ones(300, int), n=1, change=held, summary=summary)
    if said is not None:
        with pytest.raises(UserError, match=f"strange.parquet: its acr_ray.summary: {re.escape(said)}"):
            open_source(content)
        return
    source = open_source(content)
    assert source.n == held["n"].max() and "radii" in source.notes[0]


def test_what_a_rule_decides_passes_the_checks_of_the_reader(tmp_path):
    """Sequential bounds may lie above the final share; none of many is taken for a contradiction."""
    for stopping in ("radii", "width"):
        path, held = stopped(tmp_path / stopping / "certificates.parquet", stopping, images=5000)
        assert open_source(path).images == 5000
    rule = rule_for(CertifySettings(sigma=SIGMA, dataset="digits", n=N, alpha=ALPHA, radii=GRID, stopping="radii"))
    used, held, _ = simulate(rule, np.full(2000, 0.999), ALPHA, np.random.default_rng(0))
    assert (held == rule.thresholds[-1]).all() and used.max() < 1500
