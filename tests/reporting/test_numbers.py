"""Metrics, budgets, intervals and distributions against slow, obvious references."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from acr_ray.reporting import build_report, open_source
from acr_ray.reporting.budget import MOST_VALUES, at_budget, rank_changes, sensitivity
from acr_ray.reporting.counts import counts_from_radius
from acr_ray.reporting.distribution import Distribution, dkw_half_width
from acr_ray.reporting.intervals import ecdf_band, mean_interval, p_a_bounds
from acr_ray.reporting.metrics import acr, certified_accuracy, certified_accuracy_steps, hard_share
from acr_ray.smoothing.bounds import lower_bound, max_radius, radius
from acr_ray.smoothing.ecdf_band import ecdf_band as draws_bounds
from acr_ray.smoothing.rules import RADII as STOPPED_AT_RADII
from tests.reporting.making import certificates

RADII = (0.0, 0.1, 0.25, 0.4)


def slow_radius(count: int, n: int, sigma: float, alpha: float) -> float:
    p = stats.binomtest(count, n).proportion_ci(1 - 2 * alpha, "exact").low
    return sigma * stats.norm.ppf(p) if p > 0.5 else 0.0


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(5)
    counts = np.concatenate([rng.binomial(1000, rng.beta(2, 0.5, 200)), [1000, 0, 999, 500, 549, 551]])
    wrong = np.flatnonzero(counts < 450)[:3]
    return open_source(certificates(tmp_path / "run" / "certificates.parquet", counts, wrong=wrong))


def test_metrics_of_counts(source):
    rows = source.rows
    radii = [
        slow_radius(int(c), 1000, 0.25, 0.001) if p == y else 0.0
        for c, p, y in zip(rows.count, rows.predicted, rows.label, strict=True)
    ]
    certified = [p == y for p, y in zip(rows.predicted, rows.label, strict=True)]
    assert acr(source) == pytest.approx(sum(radii) / len(radii), abs=1e-9)
    slow = [sum(c and x >= r for c, x in zip(certified, radii, strict=True)) / len(radii) for r in RADII]
    assert certified_accuracy(source, RADII) == pytest.approx(slow)
    assert hard_share(source) == pytest.approx(sum(c / 1000 < 0.5 for c in rows.count) / len(radii))
    assert (source.name, source.n, source.incomplete) == ("run", 1000, "")


def test_certified_accuracy_counts_a_radius_that_is_met_exactly(source):
    held = source.rows.radius[source.rows.correct]
    exact = float(held[held > 0][0])
    share = certified_accuracy(source, [exact])[0]
    assert share == (held >= exact).mean() * held.size / source.images
    assert certified_accuracy(source, [np.nextafter(exact, 9)])[0] < share
    r, y = certified_accuracy_steps(source, 10)
    np.testing.assert_allclose(certified_accuracy(source, r[:-1]), y[:-1])
    assert y[-1] == 0


def test_own_budget_gives_own_numbers(source):
    at = at_budget(source.distribution, 0.25, 1000, 0.001)
    assert at.acr == pytest.approx(acr(source), abs=1e-12)
    assert at.certified_accuracy([0.1, 0.25]) == pytest.approx(certified_accuracy(source, [0.1, 0.25]))


@pytest.mark.parametrize(("n", "alpha"), [(100, 0.05), (777, 0.001), (100_000, 0.0001)])
def test_other_budgets_against_one_image_at_a_time(source, n, alpha):
    radii = [slow_radius(int(c) * n // 1000, n, 0.25, alpha) for c in source.rows.count]
    at = at_budget(source.distribution, 0.25, n, alpha)
    assert at.acr == pytest.approx(np.mean(radii), abs=1e-9)
    positive = [sum(x >= r for x in radii) / len(radii) for r in (0.1, 0.25)]
    assert at.certified_accuracy([0.1, 0.25]) == pytest.approx(positive)


def test_thinning_many_values_only_lowers_acr_and_hardly():
    rng = np.random.default_rng(1)
    p = 1 - rng.random(3 * MOST_VALUES) ** 3 / 2
    full = radius(lower_bound(np.floor(p * 10**6), 10**6, 0.001), 0.5).mean()
    thin = at_budget(Distribution.of_images(p), 0.5, 10**6, 0.001).acr
    assert full - 1e-4 < thin <= full + 1e-12


@pytest.mark.parametrize(("n", "alpha", "sigma"), [(1000, 0.001, 0.25), (37, 0.05, 1.0), (100_000, 0.01, 0.5)])
def test_counts_come_back_from_their_radii(n, alpha, sigma):
    every = np.arange(n // 2, n + 1)
    every = every[lower_bound(every, n, alpha) > 0.5]
    for counts in (every, every[:: max(1, every.size // 50)]):  # many values, and few: two ways to compute
        radii = radius(lower_bound(counts, n, alpha), sigma)
        np.testing.assert_array_equal(counts_from_radius(radii, sigma, n, alpha), counts)
        np.testing.assert_array_equal(counts_from_radius(radii + 1e-9, sigma, n, alpha), counts)
    assert counts_from_radius([99.0], sigma, n, alpha)[0] == n
    assert counts_from_radius(np.zeros((2, 1)), sigma, n, alpha).tolist() == [[every[0]], [every[0]]]


def test_ecdf_counts_ties_and_knows_what_it_does_not_know():
    d = Distribution.of_images([0.2, 0.5, 0.5, 1.0])
    assert d.at_least([0, 0.2, 0.21, 0.5, 0.51, 1.0]).tolist() == [1, 1, 0.75, 0.75, 0.25, 0.25]
    half = Distribution.of_images([np.nan, 0.7, np.nan, 0.9], known_from=0.5)
    assert half.at_least([0.5, 0.8]).tolist() == [0.5, 0.25] and np.isnan(half.at_least(0.3))
    assert half.below(0.5) == 0.5
    with pytest.raises(ValueError):
        half.below(0.4)


def test_steps_are_exact_and_few():
    d = Distribution.of_images(np.random.default_rng(0).random(5000))
    x, y = d.steps(300)
    assert x.size <= 300 and (x[0], x[-1]) == (0.0, 1.0)
    np.testing.assert_array_equal(y, d.at_least(x))


def test_dkw_band_holds_the_true_curve_as_often_as_it_says():
    assert dkw_half_width(10_000) == pytest.approx(math.sqrt(math.log(40) / 20_000))
    rng = np.random.default_rng(3)
    x = np.linspace(0, 1, 501)
    missed = 0
    for _ in range(300):
        d = Distribution.of_images(rng.random(200))
        missed += np.abs(d.at_least(x) - (1 - x)).max() > dkw_half_width(200)
    assert missed / 300 < 0.09


def test_each_images_bounds_lie_around_its_share(source):
    low, high = p_a_bounds(source.rows, source.alpha)
    assert (low <= source.rows.p_a).all() and (source.rows.p_a <= high).all()


def test_the_band_covers_the_noise_of_the_draws_and_the_choice_of_images(source):
    x = np.array([0.1, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0])
    half = dkw_half_width(source.images)
    core = draws_bounds(source.rows.count, source.rows.draws, source.alpha)
    low, high = ecdf_band(source, x)
    np.testing.assert_allclose(low, np.clip(core.at(x)[0] - half, 0, 1), atol=1e-12)
    np.testing.assert_allclose(high, np.clip(core.at(x)[1] + half, 0, 1), atol=1e-12)
    error = core.error(source.rows.count, source.rows.draws, 0.02, 0.98)
    assert source.p_a_error == pytest.approx(error, abs=1e-8) and 0 < error < 1


def test_counts_that_decided_themselves_when_to_stop_have_no_band_of_their_own(source):
    stopped = replace(source, bound=STOPPED_AT_RADII)
    assert stopped.draws_band is None and stopped.p_a_error is None
    low, high = ecdf_band(stopped, np.array([0.5]))
    share, half = stopped.distribution.at_least(0.5), dkw_half_width(stopped.images)
    assert low[0] == pytest.approx(max(share - half, 0)) and high[0] == pytest.approx(min(share + half, 1))


def test_bootstrap_interval_covers_and_agrees_with_its_limit():
    rng = np.random.default_rng(0)
    hits = 0
    for k in range(200):
        low, high = mean_interval(rng.exponential(size=300), resamples=300, seed=k)
        hits += low <= 1.0 <= high
    assert 0.88 < hits / 200 <= 1.0
    values = rng.exponential(size=20_001)
    assert mean_interval(values) == pytest.approx(mean_interval(values[:20_000]), abs=2e-3)
    assert mean_interval([0.3] * 5) == pytest.approx((0.3, 0.3))
    assert mean_interval(values[:50]) == mean_interval(values[:50])


def test_sensitivity_is_the_derivative_of_the_radius():
    for p in (0.5, 0.7, 0.99):
        slope = (stats.norm.ppf(p + 1e-6) - stats.norm.ppf(p - 1e-6)) / 2e-6 * 0.5
        assert sensitivity(p, 0.5) == pytest.approx(slope, rel=1e-4)
    assert sensitivity(1.0, 0.5) == np.inf


def test_rank_changes_names_riser_and_budget():
    acrs = [[0.1, 0.2, 0.3], [0.2, 0.21, 0.22]]
    assert rank_changes(["late", "early"], acrs, [10, 100, 1000]) == [("late", "early", 1000)]
    assert rank_changes(["a", "b"], [[1, 2], [2, 3]], [1, 2]) == []


def test_constant_classifier_is_the_best_single_class(tmp_path):
    path = certificates(tmp_path / "certificates.parquet", [900] * 10, labels=[0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    row = build_report([open_source(path)], radii=(0.0, 0.3, 5.0)).constant
    ceiling = max_radius(0.25, 1000, 0.001)
    assert row.acr == pytest.approx(0.4 * ceiling) and row.hard_share == pytest.approx(0.6)
    assert row.certified_accuracy == (0.4, 0.4, 0.0)
    assert ceiling == pytest.approx(0.25 * stats.norm.ppf(0.001 ** (1 / 1000)))
