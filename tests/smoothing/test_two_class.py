"""Two-class certificates: exact error probabilities by enumeration, and what broken variants would do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special, stats

from acr_ray.smoothing.bounds import lower_bound, radius, upper_bound
from acr_ray.smoothing.rules import Draws
from acr_ray.smoothing.two_class import LEAST_CLAIM, ahead, runner_up, two_class_p_lower
from acr_ray.smoothing.two_class_rules import TwoClassFixedRule

ALPHA, N = 0.05, 24


def outcomes(n: int) -> np.ndarray:
    """All counts of three classes that sum to n, (M, 3)."""
    return np.array([(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)])


def true_radius(p: np.ndarray) -> float:
    """``(z(p_A) - max z(p_c)) / 2`` for class 0 at sigma 1, at most 0 if it is not ahead."""
    return float(special.ndtri(p[0]) - special.ndtri(p[1:].max())) / 2


def error(p: np.ndarray, claims: np.ndarray, counts: np.ndarray) -> float:
    """The exact probability that the claim for class 0 exceeds what is true."""
    truth = true_radius(p)
    wrong = (claims > 0) & (radius(claims, 1.0) > max(truth, 0.0) + 1e-12) | (claims > 0) & (truth <= 0)
    return float(stats.multinomial.pmf(counts, int(counts[0].sum()), p)[wrong].sum())


def boundary_cases() -> list[np.ndarray]:
    """Trinomials whose true radius is just below what some counts claim: where errors are likeliest."""
    counts = outcomes(N)
    claims = np.unique(radius(two_class_p_lower(counts[:, 0], counts[:, 1:].max(axis=1), N, ALPHA), 1.0))
    cases = []
    for r, p_c in itertools.product((0.0, *claims[claims > 1e-9] - 1e-9), (0.02, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5)):
        p_a = float(special.ndtr(special.ndtri(p_c) + 2 * r))
        rest = 1 - p_a - p_c
        if 0 <= rest <= p_c:
            cases.append(np.array([p_a, p_c, rest]))
    return cases


GRID = [np.array([a, b, 20 - a - b]) / 20 for a in range(1, 20) for b in range(1, 20 - a + 1) if 20 - a - b >= 0]


def test_a_claim_is_wrong_at_most_with_probability_alpha() -> None:
    counts = outcomes(N)
    claims = two_class_p_lower(counts[:, 0], counts[:, 1:].max(axis=1), N, ALPHA)
    errors = [error(p, claims, counts) for p in (*GRID, *boundary_cases())]
    assert max(errors) <= ALPHA
    assert max(errors) > ALPHA / 4  # the search does find the places where it is close


def test_the_search_catches_bounds_at_twice_alpha() -> None:
    """Both bounds at alpha instead of alpha/2 stay below alpha on every case tried here; nobody has proved it."""
    counts = outcomes(N)
    top, second = counts[:, 0], counts[:, 1:].max(axis=1)
    worst = {}
    for level in (ALPHA, 2 * ALPHA):
        gap = special.ndtri(lower_bound(top, N, level)) - special.ndtri(upper_bound(second, N, level))
        claims = np.where(ahead(top, second, level), np.maximum(special.ndtr(gap / 2), LEAST_CLAIM), 0.0)
        errors = [0.0]
        for claim in np.unique(claims[claims > LEAST_CLAIM]):  # these claims have boundaries of their own
            for p_c in np.linspace(0.02, 0.5, 25):
                p_a = float(special.ndtr(special.ndtri(p_c) + 2 * special.ndtri(claim) - 1e-9))
                if 0 <= 1 - p_a - p_c <= p_c:
                    errors.append(error(np.array([p_a, p_c, 1 - p_a - p_c]), claims, counts))
        worst[level] = max(errors)
    assert worst[ALPHA] <= ALPHA < worst[2 * ALPHA]


def test_the_search_catches_selection_from_the_estimation_draws() -> None:
    """If the draws behind the bound also chose the class, one of two equal classes is "certified" too often."""
    top = np.arange(N // 2, N + 1)
    chance = stats.binom.pmf(top, N, 0.5) * np.where(2 * top == N, 1, 2)
    assert chance[ahead(top, N - top, ALPHA)].sum() > ALPHA


def test_radius_zero_is_the_exact_conditional_test() -> None:
    for top, second in itertools.product(range(0, 30, 3), range(0, 30, 4)):
        expected = top + second > 0 and stats.binomtest(top, top + second, 0.5, alternative="greater").pvalue <= ALPHA
        assert bool(ahead(top, second, ALPHA)) == expected, (top, second)


def test_the_bound_falls_with_the_runner_up_and_is_never_far_below_the_one_class_bound() -> None:
    n = 10_000
    for top in (5100, 7000, 9900, 10_000):
        seconds = np.arange(0, n - top + 1, max(1, (n - top) // 50))
        claims = two_class_p_lower(top, seconds, n, 0.001)
        assert (np.diff(claims) <= 0).all()
        one = radius(lower_bound(top, n, 0.001), 1.0)
        # At worst all other draws are one class: then alpha/2 in place of alpha is all that is lost.
        assert radius(claims[-1], 1.0) >= radius(lower_bound(top, n, 0.0005), 1.0) - 1e-12
        assert radius(claims[-1], 1.0) >= 0.99 * one


def test_all_draws_agreeing_certify_the_one_class_ceiling() -> None:
    assert two_class_p_lower(1000, 0, 1000, 0.001) == lower_bound(1000, 1000, 0.001)


def test_a_class_below_one_half_is_certified_if_the_runner_up_is_further_below() -> None:
    p = np.array([0.45, 0.30, 0.25])
    counts = np.random.default_rng(0).multinomial(10_000, p)
    assert lower_bound(counts[0], 10_000, 0.001) < 0.5
    claim = two_class_p_lower(counts[0], runner_up(counts, 0), 10_000, 0.001)
    assert 0 < radius(claim, 1.0) < true_radius(p)


def test_many_classes_cost_nothing() -> None:
    few, many = np.array([600, 200, 200]), np.zeros(1000, dtype=np.int64)
    many[[7, 400, 999]] = few
    rule = TwoClassFixedRule(1000, 0.001)
    said = [
        rule.judge_draws(Draws(label, {label: 10}, [{c: int(v) for c, v in enumerate(counts) if v}])).p_lower
        for label, counts in ((0, few), (7, many))
    ]
    assert said[0] == said[1] > 0.5


@pytest.mark.parametrize("second", [-1, 401])
def test_impossible_counts_are_refused(second: int) -> None:
    with pytest.raises(ValueError, match="count_second"):
        two_class_p_lower(600, second, 1000, 0.001)
