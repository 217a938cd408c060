"""Stopping rules: their formulas against slow references, and what they decide."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import special, stats

from acr_ray.settings import CertifySettings
from acr_ray.smoothing import futility, width
from acr_ray.smoothing.bounds import lower_bound, radius, randomized_lower_bound
from acr_ray.smoothing.rules import geometric_looks
from acr_ray.smoothing.spending import boundary
from acr_ray.smoothing.stopping import FixedRule, RadiiRule, claim_at, coin, rule_for
from tests.smoothing.crossing import crossing

SIGMA = 0.25


def settings(stopping="radii", **given) -> CertifySettings:
    return CertifySettings(**{"sigma": SIGMA, "dataset": "digits", "n": 5000, "stopping": stopping, **given})


def walk(p: Fraction, looks, counts=None, spent=None):
    """By enumeration: reaching probability and, where ``spent`` is given, the least counts that keep to it."""
    mass, used, before, found = {0: Fraction(1)}, Fraction(0), 0, []
    for k, n in enumerate(looks):
        m, after = n - before, {}
        for have, weight in mass.items():
            for new in range(m + 1):
                chance = math.comb(m, new) * p**new * (1 - p) ** (m - new)
                after[have + new] = after.get(have + new, Fraction(0)) + weight * chance
        if spent is not None:
            count = n + 1
            while used + sum(w for c, w in after.items() if c >= count - 1) <= spent[k]:
                count -= 1
        else:
            count = counts[k]
        found.append(count)
        used += sum(w for c, w in after.items() if c >= count)
        mass, before = {c: w for c, w in after.items() if c < count}, n
    return used, found


@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(7, 10), Fraction(9, 10)])
@pytest.mark.parametrize("alpha", [Fraction(1, 20), Fraction(3, 10)])
def test_boundary_and_crossing_by_enumeration(p, alpha):
    looks = (5, 9, 20, 34)
    spent = [alpha * part for part in (Fraction(1, 7), Fraction(2, 7), Fraction(3, 7), 1)]
    used, expected = walk(p, looks, spent=spent)
    found = boundary(float(p), looks, [float(s) for s in spent])
    assert found.tolist() == expected and 0 < used <= alpha
    assert crossing(float(p), looks, found) == pytest.approx(float(used), rel=1e-9)


def test_crossing_by_enumeration_of_any_counts():
    looks, counts = (3, 6, 13), (4, 5, 9)
    used, _ = walk(Fraction(3, 5), looks, counts=counts)
    assert crossing(0.6, looks, counts) == pytest.approx(float(used), rel=1e-12)


def test_convolution_by_transform_agrees_with_the_direct_one(monkeypatch):
    looks = geometric_looks(20_000, 500, 1.5)
    spent = 0.001 * np.array(looks) / looks[-1]
    direct = boundary(0.9, looks, spent)
    monkeypatch.setattr("acr_ray.smoothing.spending._DIRECT", 0)
    assert boundary(0.9, looks, spent).tolist() == direct.tolist()


def test_one_look_is_clopper_pearson():
    for p in (0.5, 0.9, 0.999):
        count = int(boundary(p, (10_000,), (0.001,))[0])
        assert lower_bound(count, 10_000, 0.001) >= p > lower_bound(count - 1, 10_000, 0.001)


def test_giving_up_in_closed_form_for_two_looks():
    """worth * P[the last look claims] = cost of going there, with the score normal given the one before."""
    looks, p, worth = (4000, 10_000), 0.7, 20_000.0
    bounds = boundary(p, looks, (0.0001, 0.001))[:, None]
    found = futility.give_up_scores([p], looks, bounds, worth)
    needed = float(futility.score(bounds[1, 0] - 0.5, looks[1], p))
    ratio = looks[1] / looks[0]
    expected = (needed + stats.norm.ppf(6000 / worth) * math.sqrt(ratio - 1)) / math.sqrt(ratio)
    assert found[0, 0] == pytest.approx(expected, abs=futility.STEP)
    assert found[1, 0] == np.inf


def test_giving_up_by_a_slow_induction():
    """Plain loops and numerical integration over the next score, with the value of the next threshold."""
    looks, thresholds, worth = (500, 800, 1500, 2000), (0.6, 0.65), np.array([3000.0, 6000.0])
    bounds = np.stack([boundary(p, looks, 0.05 * np.array(looks) / 2000) for p in thresholds], axis=1)
    found = futility.give_up_scores(thresholds, looks, bounds, worth)
    nodes, weights = special.roots_hermitenorm(120)
    weights = weights / weights.sum()

    def value(k: int, r: int, z: float) -> float:
        """Of standing at look k, r thresholds claimed before it, with score z against threshold r."""
        if r == 2:
            return 0.0
        count = futility.count_at(z, looks[k], thresholds[r])
        if count >= bounds[k, r] - 0.5:
            further = float(futility.score(count, looks[k], thresholds[r + 1])) if r == 0 else 0.0
            return worth[r] + value(k, r + 1, further)
        return max(0.0, going_on(k, r, z))

    grid = np.arange(-9, 9.05, 0.1)
    memo = {}

    def going_on(k: int, r: int, z: float) -> float:
        if k == len(looks) - 1:
            return -1.0
        if (k + 1, r) not in memo:
            memo[k + 1, r] = np.array([value(k + 1, r, x) for x in grid])
        ratio = looks[k + 1] / looks[k]
        nxt = z * math.sqrt(ratio) + nodes * math.sqrt(ratio - 1)
        return float(weights @ np.interp(nxt, grid, memo[k + 1, r])) - (looks[k + 1] - looks[k])

    for k in range(len(looks) - 1):
        for r in range(2):
            expected = next(z for z in grid if going_on(k, r, z) > 0)
            assert found[k, r] == pytest.approx(expected, abs=0.15)


def test_scores_and_counts_are_inverse():
    counts = np.array([10.0, 500.0, 977.0, 1000.0])
    np.testing.assert_allclose(futility.count_at(futility.score(counts, 1000, 0.9), 1000, 0.9), counts)


@pytest.mark.parametrize("count, n", [(0, 10), (3, 10), (51, 60), (9999, 10_000), (10_000, 10_000)])
@pytest.mark.parametrize("u", [0.0, 0.2, 0.9, 0.999999, 1.0])
def test_randomised_bound_solves_stevens_equation(count, n, u):
    p = randomized_lower_bound(count, n, 0.01, u)
    assert float(lower_bound(count, n, 0.01)) <= p <= float(lower_bound(min(count + 1, n), n, 0.01))
    if 0 < count < n:
        assert stats.binom.sf(count, n, p) + u * stats.binom.pmf(count, n, p) == pytest.approx(0.01, rel=1e-7)
        assert stats.binom.sf(count, n, p) + u * stats.binom.pmf(count, n, p) <= 0.01 * (1 + 1e-10)


def test_the_coin_is_uniform_and_an_images_own():
    coins = np.array([coin(3, f"digits/{i:04d}") for i in range(4000)])
    assert stats.kstest(coins, "uniform").pvalue > 1e-4 and coins.min() >= 0 and coins.max() < 1
    assert coin(3, "a") == coin(3, "a") != coin(4, "a") != coin(3, "b")


@pytest.mark.parametrize("r", [0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.9])
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_a_claim_is_the_least_that_reads_as_its_radius(r, sigma):
    p = claim_at(r, sigma)
    if p < 1:
        assert float(radius(p, sigma)) >= r and float(radius(p, sigma)) > 0
        below = float(radius(math.nextafter(p, 0.0), sigma))
        assert below < r or below == 0
        assert p == pytest.approx(stats.norm.cdf(r / sigma), abs=1e-14)
    else:
        assert r / sigma > 8


@pytest.mark.parametrize("count0", [0, 45, 60, 90, 99, 100])
def test_shares_and_counts_of_width_by_a_slow_search(count0):
    alpha, tolerance, looks = 0.01, 0.02, (50, 130, 300, 1000)
    shares = width.alpha_shares(looks, 100, count0, alpha, SIGMA, tolerance)
    assert np.all(shares > 0) and shares.sum() <= alpha and shares.sum() == pytest.approx(alpha)
    some, enough = width.stopping_counts(looks, shares, alpha, SIGMA, tolerance)
    for k, n in enumerate(looks[:-1]):
        stops = []
        for count in range(n + 1):
            bound = float(lower_bound(count, n, float(shares[k])))
            whole = float(radius(lower_bound(math.floor(count / n * 1000 + 1e-9), 1000, alpha), SIGMA))
            if bound > 0.5 and whole - float(radius(bound, SIGMA)) <= tolerance:
                stops.append(count)
        assert stops == list(range(some[k], enough[k] + 1))


def test_hopeless_is_a_small_chance_of_certifying():
    looks, n0, alpha = (200, 1000, 4000, 10_000), 100, 0.001
    found = width.hopeless_counts(looks, n0, alpha)
    needed = next(c for c in range(5000, 10_000) if lower_bound(c, looks[-1], alpha) > 0.5)
    for n, count in zip(looks[:-1], found, strict=False):
        seen, left = n + n0, looks[-1] - n - n0
        predicted = stats.betabinom(left, count + 0.5, seen - count + 0.5)
        assert predicted.sf(needed - count - 1) == pytest.approx(width.HOPELESS, rel=0.25)
    assert found[-1] == 0


@pytest.mark.parametrize("given", [{}, {"alpha": 0.05, "n0": 10}, {"stopping": "width"}, {"stopping": "fixed"}])
def test_whole_paths_are_judged_as_look_by_look(given):
    asked = settings(**{"n": 4000, **given})
    rule, rng = rule_for(asked), np.random.default_rng(5)
    p = np.concatenate([rng.beta(3, 1, 150), 1 - rng.exponential(0.005, 50)])
    counts0 = rng.binomial(asked.n0, p)
    paths = np.cumsum(rng.binomial(np.diff(rule.looks, prepend=0), p[:, None]), axis=1)
    stops, claims = rule.judge_all(paths, asked.n0, counts0)
    assert stops[:, -1].all() and np.all(np.diff(claims, axis=1) >= 0)
    for i, path in enumerate(paths.tolist()):
        last = int(stops[i].argmax())
        for k in range(last + 1):
            found = rule.judge(path[: k + 1], asked.n0, int(counts0[i]))
            assert found.stop == bool(found.reason) == (k == last)
        assert found.p_lower == pytest.approx(claims[i, last], rel=1e-14)
        assert found.p_lower == 0 or 0.5 < found.p_lower <= lower_bound(rule.looks[last], rule.looks[last], asked.alpha)


def test_what_ends_an_image():
    rule = rule_for(settings(radii=(0.0, 0.25, 0.5)))
    looks = np.array(rule.looks)
    perfect = looks.tolist()

    def end(rule, path, count0):
        for k in range(len(path)):
            found = rule.judge(path[: k + 1], 100, count0)
            if found.stop:
                return rule.looks[k], found
        raise AssertionError("never stops")

    n, found = end(rule, perfect, 100)
    assert found.reason == "decided" and found.p_lower == rule.thresholds[-1] and 300 < n < 600
    n, found = end(rule, (looks // 10).tolist(), 10)
    assert found == type(found)(True, 0.0, "futile") and n == rule.looks[0]
    n, found = end(rule, (looks * 9 // 10).tolist(), 90)
    assert found.reason == "futile" and found.p_lower == rule.thresholds[1] and n < 2000
    rule = rule_for(settings("width", tolerance=0.05))
    assert end(rule, (np.array(rule.looks) * 8 // 10).tolist(), 80)[1].reason == "width"
    assert end(rule, (np.array(rule.looks) // 3).tolist(), 30)[1].reason == "futile"
    rule = rule_for(settings("width", tolerance=0.005))
    assert end(rule, list(rule.looks), 100)[1].reason == "n"


def test_radii_out_of_reach_cost_nothing():
    within = rule_for(settings(radii=(0.0, 0.5)))
    assert rule_for(settings(radii=(0.0, 0.5, 0.9, 5.0))).thresholds == within.thresholds
    assert rule_for(settings(radii=(5.0,))).thresholds == rule_for(settings(radii=(0.0,))).thresholds


@pytest.mark.parametrize("stopping", ["fixed", "radii", "width"])
@pytest.mark.parametrize("n", [10, 11, 19, 21, 100, 101, 10_000_000])
def test_looks_end_with_n_whatever_n_is(stopping, n):
    rule = rule_for(settings(stopping, n=n))
    assert rule.looks[-1] == n and list(rule.looks) == sorted(set(rule.looks)) and len(rule.looks) <= 120
    found = rule.judge(list(rule.looks), 10, 10)
    assert found.stop and 0.5 < found.p_lower <= lower_bound(n, n, 0.001)


def test_names_of_bounds():
    assert rule_for(settings("fixed")).name == "clopper-pearson"
    assert rule_for(settings("fixed", bound="randomized")).name == "clopper-pearson-randomized"
    assert rule_for(settings("radii")).name == "sequential-radii/1"
    assert rule_for(settings("width")).name == "clopper-pearson-split/1"
    assert FixedRule(1000, 0.001).judge([900], 1, 1).p_lower == float(lower_bound(900, 1000, 0.001))
    fixed = FixedRule(1000, 0.001, randomized=True)
    assert fixed.judge([900], 1, 1, 0.5).p_lower == randomized_lower_bound(900, 1000, 0.001, 0.5)
    assert isinstance(rule_for(settings()), RadiiRule) and rule_for(settings()) is rule_for(settings())
