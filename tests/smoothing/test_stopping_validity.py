"""No rule's bound exceeds the true probability more often than alpha: exactly, and by simulation."""

import numpy as np
import pytest
from scipy import optimize, stats

from acr_ray.settings import CertifySettings
from acr_ray.smoothing import width
from acr_ray.smoothing.bounds import lower_bound, randomized_lower_bound
from acr_ray.smoothing.rules import geometric_looks
from acr_ray.smoothing.spending import boundary
from acr_ray.smoothing.stopping import RadiiRule, claim_at, rule_for
from tests.smoothing.crossing import crossing

P = (0.5, 0.6, 0.8, 0.95, 0.999)
SIGMA, PATHS = 0.25, 200_000


def slow_crossing(p: float, looks, counts) -> float:
    """As `crossing`, over all counts from 0 to n without leaving anything out."""
    mass, used, before = np.ones(1), 0.0, 0
    for n, count in zip(looks, counts, strict=True):
        mass = np.convolve(mass, stats.binom.pmf(np.arange(n - before + 1), n - before, p))
        used, mass, before = used + mass[count:].sum(), mass[:count], n
    return used


def exceeding_counts(p: float, looks, shares) -> list[int]:
    """The least count at each look whose Clopper-Pearson bound exceeds p."""
    return [
        int(np.argmax(np.append(lower_bound(np.arange(n + 1), n, a) > p, True)))
        for n, a in zip(looks, shares, strict=True)
    ]


def assert_valid(wrong: float, alpha: float, paths: int | None = None) -> None:
    """An exact probability may not exceed alpha; a share of simulated paths by five standard deviations."""
    allowance = 0.0 if paths is None else 5 * np.sqrt(alpha * (1 - alpha) / paths)
    assert wrong <= alpha + allowance, f"wrong with probability {wrong:.6f}, alpha {alpha}"


def simulated(looks, p: float, paths: int = PATHS, seed: int = 0) -> np.ndarray:
    draws = np.diff(looks, prepend=0)
    rng = np.random.default_rng(seed)
    return np.cumsum(np.stack([rng.binomial(m, p, paths) for m in draws], axis=1), axis=1)


def wrong_share(rule, p: float, n0: int = 100) -> float:
    """Share of paths on which a claim above p may be made at any look, stopped or not; and on stopping."""
    paths = simulated(rule.looks, p)
    counts0 = np.random.default_rng(1).binomial(n0, p, len(paths))
    stops, claims = rule.judge_all(paths, n0, counts0)
    stopped = claims[np.arange(len(paths)), stops.argmax(axis=1)]
    assert (stopped > p).mean() <= (claims[:, -1] > p).mean()
    return float((claims[:, -1] > p).mean())


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("n", [2000, 10_000])
def test_radii_exactly_with_a_threshold_just_above_p(n, alpha):
    """The hardest grid for each p: the next threshold is p itself."""
    rule = RadiiRule([claim_at(SIGMA * stats.norm.ppf(p), SIGMA) for p in P], geometric_looks(n, 20, 1.12), alpha)
    assert np.all(np.diff(rule.boundaries, axis=1) >= 0)  # so reaching a count rejects all thresholds below, too
    for r, p in enumerate(P):
        wrong = crossing(p, rule.looks, rule.boundaries[:, r])
        assert_valid(wrong, alpha)
        if n * (1 - p) > 20:
            assert wrong > 0.8 * alpha  # and little of alpha is wasted, but by whole counts near n
        if n == 2000:
            assert wrong == pytest.approx(slow_crossing(p, rule.looks, rule.boundaries[:, r]), rel=1e-9)


def test_radii_exactly_on_the_fields_grid_at_the_fields_n():
    rule = rule_for(CertifySettings(sigma=SIGMA, dataset="cifar10", stopping="radii", radii=(0.0, 0.25, 0.5, 0.75)))
    for p in (*P, *rule.thresholds):
        for r, threshold in enumerate(rule.thresholds):
            if threshold >= p:
                assert_valid(crossing(p, rule.looks, rule.boundaries[:, r]), 0.001)


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_width_exactly(p, alpha):
    looks = geometric_looks(2000, 100, 1.35)
    for count0 in (0, 50, 60, 80, 95, 99, 100):
        shares = width.alpha_shares(looks, 100, count0, alpha, SIGMA, 0.02)
        counts = exceeding_counts(p, looks, shares)
        wrong = crossing(p, looks, counts)
        assert_valid(wrong, alpha)
        assert wrong == pytest.approx(slow_crossing(p, looks, counts), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_fixed_exactly(p, alpha):
    assert_valid(slow_crossing(p, (2000,), exceeding_counts(p, (2000,), (alpha,))), alpha)


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_randomised_exactly(p, alpha):
    """Integrated over the coin: the bound falls as the coin grows, so it exceeds p below one value of the coin."""
    n, wrong = 400, 0.0
    for count in range(n + 1):
        highest, lowest = (randomized_lower_bound(count, n, alpha, u) for u in (0.0, 1.0))
        share = float(lowest > p)
        if highest > p >= lowest:
            share = optimize.brentq(lambda u: randomized_lower_bound(count, n, alpha, u) - p, 0.0, 1.0)  # noqa: B023
        wrong += stats.binom.pmf(count, n, p) * share
    assert_valid(wrong, alpha * (1 + 1e-9))
    # Nothing is wasted but what all draws agreeing could claim beyond Clopper-Pearson.
    assert wrong >= alpha * (1 - 1e-6) - p**n


@pytest.mark.parametrize("stopping, p", [("radii", 0.5), ("radii", 0.95), ("width", 0.6), ("width", 0.999)])
def test_by_simulation(stopping, p):
    rule = rule_for(
        CertifySettings(sigma=SIGMA, dataset="cifar10", stopping=stopping, n=1000, alpha=0.05, tolerance=0.02)
    )
    assert_valid(wrong_share(rule, p), 0.05, PATHS)


@pytest.mark.slow
@pytest.mark.parametrize("stopping", ["radii", "width"])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("p", P)
def test_by_simulation_everywhere(stopping, alpha, p):
    """For radii with a threshold at p, so that the error can be as large as it ever is."""
    given = {"sigma": SIGMA, "dataset": "cifar10", "n": 10_000, "alpha": alpha, "stopping": stopping}
    radii = sorted({0.0, float(SIGMA * stats.norm.ppf(p)), 0.25})
    rule = rule_for(CertifySettings(**given, radii=tuple(radii), tolerance=0.01))
    assert_valid(wrong_share(rule, p), alpha, PATHS)


@pytest.mark.parametrize("p", P)
def test_a_broken_rule_is_caught(p):
    """Clopper-Pearson at the whole of alpha at every look: what sequential testing must not do."""
    looks, alpha = geometric_looks(10_000 if p == 0.999 else 2000, 20, 1.12), 0.05
    counts = exceeding_counts(p, looks, [alpha] * len(looks))
    with pytest.raises(AssertionError, match="wrong with probability"):
        assert_valid(crossing(p, looks, counts), alpha)
    if p == 0.6:
        with pytest.raises(AssertionError, match="wrong with probability"):
            assert_valid((simulated(looks, p) >= counts).any(axis=1).mean(), alpha, PATHS)


def test_a_slightly_broken_boundary_is_caught_exactly():
    """Every boundary one count too low."""
    looks, alpha = geometric_looks(2000, 20, 1.12), 0.001
    counts = boundary(0.8, looks, alpha * np.array(looks) / 2000)
    assert_valid(crossing(0.8, looks, counts), alpha)
    with pytest.raises(AssertionError, match="wrong with probability"):
        assert_valid(crossing(0.8, looks, counts - 1), alpha)


def test_selection_draws_reused_in_the_bound_are_caught():
    """The mistake that the method warns of: the class chosen by the very draws that the bound counts."""
    n, alpha, rng = 200, 0.05, np.random.default_rng(2)
    counts = rng.multinomial(n, [0.5, 0.5], size=PATHS).max(axis=1)
    with pytest.raises(AssertionError, match="wrong with probability"):
        assert_valid((lower_bound(counts, n, alpha) > 0.5).mean(), alpha, PATHS)
