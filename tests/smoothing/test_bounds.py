"""Bounds and radii against scipy, exact enumeration and closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from acr_ray.smoothing import bounds


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
@pytest.mark.parametrize("n", [1, 7, 100, 10_000, 100_000])
def test_lower_bound_equals_scipy(n, alpha):
    counts = np.unique(np.linspace(0, n, 40).astype(int))
    expected = [stats.binomtest(int(k), n, alternative="greater").proportion_ci(1 - alpha, "exact").low for k in counts]
    np.testing.assert_allclose(bounds.lower_bound(counts, n, alpha), expected, rtol=1e-9, atol=1e-12)


def tail(count: int, n: int, p: Fraction) -> Fraction:
    """P[Binomial(n, p) >= count], exactly."""
    return sum((math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(count, n + 1)), Fraction(0))


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_lower_bound_by_exact_enumeration(n):
    alpha = Fraction(1, 20)
    for count in range(1, n + 1):
        p = float(bounds.lower_bound(count, n, float(alpha)))
        assert tail(count, n, Fraction(p) * Fraction(999_999, 1_000_000)) < alpha
        assert tail(count, n, min(Fraction(1), Fraction(p) * Fraction(1_000_001, 1_000_000))) > alpha


@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(3, 5), Fraction(19, 20), Fraction(999, 1000)])
def test_bound_fails_with_probability_at_most_alpha_exactly(p):
    """The promise itself: summed over all outcomes, P[bound > p] <= alpha."""
    n, alpha = 30, 0.05
    lower = bounds.lower_bound(np.arange(n + 1), n, alpha)
    wrong = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if Fraction(float(lower[k])) > p)
    assert wrong <= Fraction(alpha)
    assert wrong > 0 or p > Fraction(alpha) ** Fraction(1, n)


def test_upper_bound_mirrors_the_lower():
    expected = [stats.binomtest(k, 50, alternative="less").proportion_ci(0.99, "exact").high for k in range(51)]
    np.testing.assert_allclose(bounds.upper_bound(np.arange(51), 50, 0.01), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [10, 1000, 100_000])
def test_all_draws_agree_gives_the_closed_form(n):
    assert float(bounds.lower_bound(n, n, 0.001)) == math.exp(math.log(0.001) / n)
    assert bounds.max_radius(0.5, n, 0.001) == pytest.approx(0.5 * stats.norm.ppf(0.001 ** (1 / n)), rel=1e-12)


def test_ceiling_of_the_field():
    assert (
        bounds.round_down(bounds.max_radius(1.0, 100_000, 0.001), 4) == "3.8114"
    )  # 3.81146…, printed as 3.8115 in the literature


def test_radius_is_zero_up_to_one_half():
    assert bounds.radius([0.0, 0.3, 0.5], 1.0).tolist() == [0, 0, 0]
    assert float(bounds.radius(0.5 + 1e-9, 1.0)) > 0
    assert float(bounds.radius(stats.norm.cdf(1.5), 0.25)) == pytest.approx(0.375)


@pytest.mark.parametrize("count, n", [(-1, 5), (6, 5), (0, 0), (1.5, 5)])
def test_impossible_counts_are_refused(count, n):
    with pytest.raises(ValueError, match="whole numbers"):
        bounds.lower_bound(count, n, 0.1)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_impossible_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        bounds.lower_bound(1, 2, alpha)


@pytest.mark.parametrize(
    "value, digits, text", [(0.9999, 3, "0.999"), (0.5, 3, "0.500"), (0.3, 1, "0.2"), (0.0, 2, "0.00"), (2.0, 0, "2")]
)
def test_round_down_never_exceeds_the_number(value, digits, text):
    assert bounds.round_down(value, digits) == text  # 0.3 is stored below 3/10, so even it goes down


def test_two_sided_p_value_equals_the_sum_over_outcomes():
    n, k = 12, 10
    p = [Fraction(math.comb(n, i), 2**n) for i in range(n + 1)]
    assert bounds.two_sided_p_value(k, n) == pytest.approx(float(sum(q for q in p if q <= p[k])))
    assert bounds.two_sided_p_value(0, 0) == 1.0
