"""The best source for each radius: by hand, against a slow reference, and unbiased where the naive choice is not."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

from acr_ray.reporting import build_report, comparison_table, open_source, open_sources, write_report
from acr_ray.reporting.best import best_per_radius, choose, counts_by_half, halves
from acr_ray.reporting.best_tables import best_csv
from acr_ray.reporting.report import MOST_SHOWN
from acr_ray.reporting.summary import summary
from acr_ray.reporting.tables import latex_table, markdown_table
from acr_ray.settings.errors import UserError
from acr_ray.storage import Folder
from tests.reporting.browser import rendered
from tests.reporting.making import certificates, cifar

RADII = (0.0, 0.25, 0.5)


def source(tmp_path, name, counts, **options):
    return open_source((name, certificates(tmp_path / f"{name}.parquet", counts, **options)))


def slow(sources, keys, radii, seed=0):
    """The same by loops over images; every source must have its images in the same order."""
    half = [int(h) for h in halves(keys, seed)]

    def right(source, i, r):
        rows = source.rows
        return int(rows.predicted[i] == rows.label[i] and rows.radius[i] >= r)

    def share(source, r, of):
        return sum(right(source, i, r) for i in of) / len(of)

    found = []
    for r in radii:
        parts = [[i for i in range(len(keys)) if half[i] == h] for h in (0, 1)]
        chosen = [max(sources, key=lambda s, of=of, r=r: share(s, r, of)) for of in parts]
        held_out = [share(chosen[0], r, parts[1]), share(chosen[1], r, parts[0])]
        every = range(len(keys))
        cross = sum(right(chosen[1 - half[i]], i, r) for i in every) / len(keys)
        naive = max(sources, key=lambda s, r=r: share(s, r, range(len(keys))))
        found.append(([s.name for s in chosen], held_out, cross, naive.name, share(naive, r, every)))
    return found


def test_it_equals_a_slow_reference_over_methods_and_sigmas(tmp_path):
    rng = np.random.default_rng(5)
    sources = [
        source(tmp_path, f"m{k}", rng.binomial(1000, rng.beta(a, 0.5, 61)), sigma=sigma, n=1000, wrong=range(k, 61, 11))
        for k, (a, sigma) in enumerate([(2.0, 0.25), (1.6, 0.5), (1.2, 1.0), (2.1, 0.25)])
    ]
    radii = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 9.0)
    best = best_per_radius(sources, radii)
    wanted = slow(sources, [f"test/{i}" for i in range(61)], radii)
    assert len({name for names, *_ in wanted for name in names}) > 2, "the example must need more than one source"
    for at, (chosen, held_out, cross, naive_name, naive) in zip(best.at, wanted, strict=True):
        assert (list(at.chosen), at.naive_source) == (chosen, naive_name)
        assert list(at.held_out) == pytest.approx(held_out)
        assert (at.cross_fitted, at.naive) == (pytest.approx(cross), pytest.approx(naive))
        assert at.optimism == pytest.approx(naive - cross) and at.interval[0] <= at.cross_fitted <= at.interval[1]
    # The curve passes through the same numbers, and a source's own curve is its certified accuracy.
    place = np.searchsorted(best.curve_radii, radii)
    assert best.curve[place].tolist() == [at.cross_fitted for at in best.at]
    shown = build_report(sources[:1], radii).rows[0].certified_accuracy
    assert best.accuracy[0][place].tolist() == list(shown)


def test_by_hand():
    """Two sources, two images in each half, one radius."""
    half = np.array([0, 0, 1, 1])
    counted = np.array([[0.3, 0.3, -1.0, 0.3], [0.1, 0.3, 0.3, 0.3]])
    counts = counts_by_half(counted, half, [0.2])
    assert counts[:, :, 0].tolist() == [[2, 1], [1, 2]]
    choice = choose(counts, np.array([2, 2]))
    # Half 1 prefers the first, which has 1 of 2 on half 2; half 2 the second, which has 1 of 2 on half 1.
    assert choice.chosen[:, 0].tolist() == [0, 1] and choice.held_out[:, 0].tolist() == [0.5, 0.5]
    assert choice.cross_fitted[0] == 0.5 and choice.naive[0] == 0.75


def test_of_equal_sources_the_naive_number_is_too_high_and_the_cross_fitted_one_is_not():
    rng = np.random.default_rng(0)
    truth, images, sources = 0.6, 200, 50
    half = halves([f"i/{k}" for k in range(images)])
    sizes = np.bincount(half, minlength=2)
    naive, cross = [], []
    for _ in range(400):
        counted = np.where(rng.random((sources, images)) < truth, 1.0, -1.0)
        choice = choose(counts_by_half(counted, half, [0.5]), sizes)
        naive.append(choice.naive[0])
        cross.append(choice.cross_fitted[0])
    error = np.std(cross) / np.sqrt(len(cross))
    assert abs(np.mean(cross) - truth) < 4 * error
    assert np.mean(naive) - truth > 0.05 > 20 * error


def test_halves_are_of_the_image_alone_and_about_equal():
    keys = [f"test/{i}" for i in range(10_000)]
    whole = halves(keys)
    assert abs(int(whole.sum()) - 5000) < 200
    assert halves(keys[::3]).tolist() == whole[::3].tolist()
    assert halves(keys, seed=1).tolist() != whole.tolist()


def test_the_order_of_images_in_a_file_does_not_matter(tmp_path):
    rng = np.random.default_rng(1)
    counts, other = rng.integers(0, 1001, 40), rng.integers(0, 1001, 40)
    order = rng.permutation(40)
    labels = np.arange(40) % 3
    a = source(tmp_path, "a", counts, labels=labels)
    b = source(tmp_path, "b", other, labels=labels)
    shuffled = source(tmp_path, "b", other[order], labels=labels[order], idx=order)
    assert best_per_radius([a, b], RADII).at == best_per_radius([a, shuffled], RADII).at
    assert best_per_radius([shuffled, a], RADII).at[1].cross_fitted == best_per_radius([a, b], RADII).at[1].cross_fitted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.01}, r"--best-per-radius: alpha differs: 0.001 in a, 0.01 in b"),
        ({"idx": range(1, 9)}, r"a has 8, b 8, and 7 are in both"),
        ({"labels": [1] * 8}, r"a and b label \d of 8 images differently"),
    ],
)
def test_sources_that_cannot_be_chosen_from_are_refused_in_one_line(tmp_path, options, message):
    a = source(tmp_path, "a", [900] * 8, labels=[0] * 8)
    b = source(tmp_path, "b", [900] * 8, **{"labels": [0] * 8} | options)
    with pytest.raises(UserError, match=message) as refused:
        build_report([a, b], RADII, best=True)
    assert "\n" not in str(refused.value)


def test_one_source_a_curve_and_one_image_are_refused(tmp_path):
    a = source(tmp_path, "a", [900] * 8)
    with pytest.raises(UserError, match="at least two sources"):
        build_report([a], RADII, best=True)
    curve = tmp_path / "gaussian_0.25.csv"
    curve.write_text("x,y\n0.5,0.8\n0.9,0.5\n")
    with pytest.raises(UserError, match="is a curve without images"):
        build_report([a, open_source(str(curve))], RADII, best=True)
    with pytest.raises(UserError, match="1 images are too few"):
        build_report([source(tmp_path, "b", [900]), source(tmp_path, "c", [900])], RADII, best=True)


@pytest.fixture
def made(tmp_path):
    """Two sources, each best at some radius, and a report that chooses."""
    rng = np.random.default_rng(4)
    even, steep = rng.integers(700, 800, 120), np.where(np.arange(120) % 3, 1000, 300)
    paths = [
        ("even", certificates(tmp_path / "e.parquet", even)),
        ("steep", certificates(tmp_path / "s.parquet", steep)),
    ]
    return write_report(paths, Folder(tmp_path / "out"), radii=RADII, best=True), tmp_path / "out"


def test_all_tables_and_the_summary_have_the_choice(made):
    report, out = made
    assert [at.naive_source for at in report.best.at] == ["even", "steep", "steep"]
    for text in (comparison_table(report), markdown_table(report)):
        assert re.search(r"best per radius, cross-fitted[ |]+–[ |]+100.0[ |]+66.7[ |]+66.7[ |]+–", text)
        assert "optimism" in text
    assert r"best per radius, cross-fitted & – & 100.0 & 66.7 & 66.7 & – \\" in latex_table(report)
    held = json.loads((out / "summary.json").read_text())["best_per_radius"]
    assert held["sources"] == ["even", "steep"] and list(held["radii"]) == ["0", "0.25", "0.5"]
    assert held["radii"]["0.25"]["cross_fitted"] == report.best.at[1].cross_fitted
    lines = list(csv.DictReader(io.StringIO((out / "best_per_radius.csv").read_text())))
    assert [line["naive_source"] for line in lines] == ["even", "steep", "steep"]
    assert best_csv(report.best) == (out / "best_per_radius.csv").read_text()
    assert (out / "best_per_radius.png").read_bytes()[:4] == b"\x89PNG"


def test_without_the_option_nothing_of_it_is_left(made):
    report, out = made
    write_report(list(report.sources), Folder(out), radii=RADII)
    assert json.loads((out / "summary.json").read_text())["best_per_radius"] is None
    assert not list(out.glob("best_per_radius.*")) and 'id="best"' not in (out / "report.html").read_text()


def test_of_many_sources_the_report_shows_those_that_are_chosen_and_the_baseline(tmp_path):
    rng = np.random.default_rng(2)
    sources = [source(tmp_path, f"s{k}", rng.integers(400, 1001, 50)) for k in range(MOST_SHOWN + 6)]
    report = build_report(sources, RADII, baseline="s7", best=True)
    shown = {row.name for row in report.rows}
    assert shown == report.best.winners | {"s7"} and report.baseline == "s7"
    assert report.best.left_out == len(sources) - len(shown) and len(report.best.names) == len(sources)
    assert f"of {len(sources)}, of which {report.best.left_out} are in this choice only" in comparison_table(report)
    assert summary(report)["best_per_radius"]["sources"] == [s.name for s in sources]
    assert len(build_report(sources[:MOST_SHOWN], RADII, best=True).rows) == MOST_SHOWN


def test_hundreds_of_sources_with_ten_thousand_images():
    """Counted by operations: one pass over each source, whatever the number of radii."""
    rng = np.random.default_rng(0)
    counted = rng.random((300, 10_000)) * 2 - 0.5
    half = halves([str(k) for k in range(10_000)])
    counts = counts_by_half(counted, half, np.linspace(0, 1.5, 200))
    assert counts[17, 1, 50] == ((counted[17] >= np.linspace(0, 1.5, 200)[50]) & (half == 1)).sum()
    choice = choose(counts, np.bincount(half))
    assert choice.cross_fitted.shape == (200,) and (choice.naive >= choice.cross_fitted - 0.02).all()


def test_the_released_files_are_chosen_from_by_hand():
    sources = open_sources([cifar("gaussian"), cifar("ours"), cifar("catrs")])
    best = best_per_radius(sources, RADII)
    wanted = slow(sources, [str(i) for i in sources[0].rows.idx], RADII)
    for at, (chosen, held_out, cross, naive_name, naive) in zip(best.at, wanted, strict=True):
        assert (list(at.chosen), at.naive_source) == (chosen, naive_name)
        assert (*at.held_out, at.cross_fitted, at.naive) == pytest.approx((*held_out, cross, naive))
    assert [at.naive_source for at in best.at] == ["gaussian", "ours", "ours"]


@pytest.mark.browser
def test_the_pages_choice_is_that_of_the_summary(made, tmp_path):
    _, out = made
    dom = rendered(out / "report.html", tmp_path)
    assert 'data-ready="yes"' in dom
    table = re.search(r'<table id="best-table".*?</table>', dom, re.S)[0]
    held = json.loads((out / "summary.json").read_text())["best_per_radius"]["radii"]
    rows = re.findall(r'<tr data-radius="([\d.]+)">(.*?)</tr>', table, re.S)
    assert [float(r) for r, _ in rows] == [float(r) for r in held]
    for (_, cells), at in zip(rows, held.values(), strict=True):
        values = [(f, float(v)) for f, v in re.findall(r'data-field="(\w+)" data-value="([-\d.e]+)"', cells)]
        wanted = [("cross_fitted", at["cross_fitted"]), ("naive", at["naive"]), ("optimism", at["optimism"])]
        assert values == wanted + [("held_out", share) for share in at["held_out"]]
        assert re.findall(r'class="words">(\w+)', cells) == [at["naive_source"], *at["chosen_on_halves"]]
    chart = re.search(r'<figure class="chart" data-chart="best">.*?</figure>', dom, re.S)[0]
    assert chart.count('class="curve"') == 3
    assert re.search(r'aria-valuetext="radius 0: .*best per radius, cross-fitted 100.0 %', chart)
