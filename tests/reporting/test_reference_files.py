"""The field's released files give the published numbers, to every printed digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acr_ray.reporting import build_report, open_source, open_sources
from acr_ray.reporting.budget import at_budget
from acr_ray.reporting.metrics import acr, certified_accuracy, hard_share
from tests.reporting.making import cifar, reference

RADII = (0.0, 0.25, 0.5, 0.75)
PUBLISHED = {
    "gaussian": ("0.487", ["80.4", "66.8", "50.5", "32.7"]),
    "catrs": ("0.562", ["76.3", "68.1", "58.8", "48.2"]),
    "ours": ("0.564", ["76.6", "69.0", "59.3", "48.3"]),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_numbers(method):
    source = open_source(cifar(method))
    published_acr, published_accuracy = PUBLISHED[method]
    assert f"{acr(source):.3f}" == published_acr
    assert [f"{100 * share:.1f}" for share in certified_accuracy(source, RADII)] == published_accuracy
    assert (source.images, source.sigma, source.n, source.alpha) == (10_000, 0.25, 100_000, 0.001)
    assert not source.incomplete


@pytest.mark.parametrize("method", PUBLISHED)
def test_a_slow_reading_gives_the_same(method):
    path = reference(f"certify/cifar10/{method}/noise_0.25.tsv")
    rows = [line.split("\t") for line in Path(path).read_text().splitlines()[1:]]
    total, hits = 0.0, dict.fromkeys(RADII, 0)
    for _, _, _, radius, correct, _ in rows:
        if correct == "1":
            total += float(radius)
            for r in RADII:
                hits[r] += float(radius) >= r
    source = open_source(path)
    assert acr(source) == pytest.approx(total / len(rows), abs=1e-12)
    assert certified_accuracy(source, RADII) == [hits[r] / len(rows) for r in RADII]
    assert hard_share(source) == pytest.approx(1 - hits[0.0] / len(rows), abs=1e-12)


@pytest.mark.parametrize("method", PUBLISHED)
def test_acr_from_p_a_agrees_within_the_files_rounding(method):
    source = open_source(cifar(method))
    derived = at_budget(source.distribution, source.sigma, source.n, source.alpha).acr
    # Three significant digits: off by at most half of 0.001 an image.
    assert abs(derived - acr(source)) < 0.0005
    # Seen from the grid of counts the rounded radius lies within its rounding, too: nothing was bent.
    rows = source.rows
    shown = rows.radius[rows.correct]
    again = at_budget(source.distribution, source.sigma, source.n, source.alpha).radii
    gap = np.abs(again[np.searchsorted((again[1:] + again[:-1]) / 2, shown)] - shown)
    assert gap.max() < 0.0005


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_papers_curve_of_p_a(method):
    curve = open_source(reference(f"ecdf/{method}_0.25.csv"))
    x = np.array([float(v.split("\t")[0]) for v in Path(curve.where).read_text().splitlines()[1:]])
    y = np.array([float(v.split("\t")[1]) for v in Path(curve.where).read_text().splitlines()[1:]])
    np.testing.assert_allclose(curve.distribution.at_least(np.minimum(x, 0.99999)), y, atol=1e-12)
    ours = open_source(cifar(method)).distribution.at_least(x)
    # Where a radius of three digits fits two counts the paper chose another one, at 7 of 501 points at most.
    # Its last point, x = 1, is p_A >= 0.99999.
    assert np.abs(ours - y)[:-1].max() < 0.001
    assert (np.abs(ours - y)[:-1] > 1e-9).sum() <= 6
    assert open_source(cifar(method)).distribution.at_least(0.99999) == pytest.approx(y[-1], abs=1e-12)


def test_a_curve_alone_gives_acr_to_the_second_decimal_and_its_bounds():
    for method in PUBLISHED:
        curve, file = open_source(reference(f"ecdf/{method}_0.25.csv")), open_source(cifar(method))
        row = build_report([curve]).rows[0]
        low, high = row.acr_between
        assert low < acr(file) < high and low < acr(curve) < high and not row.acr_is_lower
        assert acr(curve) == pytest.approx(acr(file), abs=0.0015)  # 0.011 to 0.015 low where all lay at the lower point
        assert certified_accuracy(curve, RADII) == pytest.approx(certified_accuracy(file, RADII), abs=0.002)
        assert hard_share(curve) == pytest.approx(hard_share(file))


def test_the_partial_imagenet_run_says_so():
    gaussian, ours = open_sources(
        [reference("certify/imagenet/gaussian/noise_0.25"), "ours=" + reference("certify/imagenet/ours/noise_0.25")]
    )
    assert gaussian.shown_name == "gaussian (incomplete: 427 of 500)"
    assert (ours.images, ours.incomplete) == (500, "")
    report = build_report([gaussian, ours])
    said = " | ".join(report.rows[0].warnings)
    assert "incomplete: 427 of 500" in said
    assert "128 stored radii exceed 0.9528" in said and "largest: 0.978" in said
    assert "alpha = 0.01 would explain it" in said
    assert "different images: 427 in gaussian, 500 in ours, 427 in both" in said
    assert report.comparisons[0].images == 427
    assert report.verdicts[0].startswith("Not a fair comparison")
    assert f"{acr(ours):.4f}" == "0.5293" and f"{acr(gaussian):.4f}" == "0.4765"


def test_every_method_above_gaussian_has_more_hard_images():
    report = build_report(open_sources([cifar(m) for m in PUBLISHED]))
    for comparison in report.comparisons:
        assert comparison.gain > 0 and comparison.hard_after > comparison.hard_before
    assert report.constant.acr == pytest.approx(0.1 * 0.952864, abs=1e-6)
