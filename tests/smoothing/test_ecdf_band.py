"""Bounds on the ECDF of p_A: the score's expectation by enumeration, the bounds by enumeration and by simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from acr_ray.smoothing import ecdf_band as module
from acr_ray.smoothing.distribution_rule import FROM, LOOKS, DistributionRule
from acr_ray.smoothing.ecdf_band import ecdf_band, grid, sharpness
from acr_ray.smoothing.ecdf_plan import RATIO, ladder, planned_draws

GRID = grid(10_000)


def whole_score(n, theta, at):
    """The score of every count at one x, from its window."""
    first, score = module._scores(n, theta, 10_000)
    count = np.arange(n + 1)
    whole = np.where(count < first[at], 0.0, 1.0)
    inside = (count >= first[at]) & (count < first[at] + score.shape[1])
    whole[inside] = score[at][count[inside] - first[at]]
    return whole


@pytest.mark.parametrize(("n", "theta"), [(1, 0.9), (3, 60.0), (20, 2.0), (50, 0.9), (200, 5.0), (1000, 0.3)])
def test_no_image_below_x_scores_more_than_it_may_and_at_x_nothing_is_given_away(n, theta):
    count = np.arange(n + 1)
    for at in range(0, len(GRID), 211):
        x, score = GRID[at], whole_score(n, theta, at)
        p = np.concatenate([np.linspace(0, x, 60), [x]])
        expected = stats.binom.pmf(count, n, p[:, None]) @ np.exp(theta * score)
        assert expected.max() <= 1 + 1e-12
        assert expected[-1] > 1 - 1e-5
        assert score.max() <= 1
        changes = np.flatnonzero(np.diff((score > 0).astype(int)))
        assert len(changes) <= 1, "it changes its sign once, which the proof rests on"


def test_a_slightly_greater_score_breaks_the_promise():
    n, theta, at = 200, 1.0, 2000
    score = whole_score(n, theta, at)
    greater = np.minimum(np.where(score < 0, score + 0.02, score), 1.0)
    at_x = stats.binom.pmf(np.arange(n + 1), n, GRID[at])
    assert at_x @ np.exp(theta * score) <= 1 < at_x @ np.exp(theta * greater)


@pytest.mark.parametrize("theta", [0.7, 2.0, 6.0])
@pytest.mark.parametrize("draws", [(6, 6, 6), (4, 9, 9), (12, 12)])
def test_one_bound_is_wrong_as_often_as_promised_at_most_by_enumeration(draws, theta):
    """All outcomes of a few images, over a grid of populations and at the worst place: p_A = x, just below it."""
    delta, loss = 0.1, math.log(1 / 0.1)
    outcomes = np.array(list(itertools.product(*(range(n + 1) for n in draws))))
    worst = 0.0
    for at in (400, 2000, 3300):
        x = GRID[at]
        scores = [whole_score(n, theta, at) for n in draws]
        low = np.ceil(sum(s[outcomes[:, i]] for i, s in enumerate(scores)) - loss / theta - 1e-9)
        for population in itertools.product((0.0, x / 2, x * 0.9, x - 1e-9, x, (1 + x) / 2), repeat=len(draws)):
            pmf = np.prod(
                [stats.binom.pmf(outcomes[:, i], n, p) for i, (n, p) in enumerate(zip(draws, population, strict=True))],
                axis=0,
            )
            wrong = pmf[low > sum(p >= x for p in population)].sum()
            worst = max(worst, wrong)
    assert worst <= delta + 1e-12


def populations(images):
    """Shares of images that a bound may find hard: everything at one place, two lumps, a comb, spread out."""
    rng = np.random.default_rng(0)
    yield "at one place", np.full(images, 0.6)
    yield "two lumps", np.where(np.arange(images) % 2, 0.55, 0.5)
    yield "a comb", np.tile(np.linspace(0.1, 0.9, 9), images // 9 + 1)[:images]
    yield "spread out", rng.beta(2, 0.6, images)
    yield "at the ends", np.where(np.arange(images) % 3, 1.0, 0.0)


def truth(p):
    return (p >= grid(len(p))[:, None]).mean(axis=1)


def at_least(counts, draws):
    return (counts / draws >= grid(len(counts))[:, None]).mean(axis=1)


def misses(p, draws, alpha, runs, widen=1.0, seed=0):
    rng, found, exact = np.random.default_rng(seed), 0, truth(p)
    for _ in range(runs):
        counts = rng.binomial(draws, p)
        band = ecdf_band(counts, draws, alpha, 0.05)
        middle = (band.low + band.high) / 2
        low, high = (middle - widen * (middle - band.low), middle + widen * (band.high - middle))
        found += bool((low > exact + 1e-9).any() or (high < exact - 1e-9).any())
    return found / runs


@pytest.mark.parametrize("which", range(5))
def test_bounds_hold_at_all_x_at_once(which):
    _, p = list(populations(200))[which]
    draws = np.where(np.arange(200) % 2, 100, 300)
    assert misses(p, draws, 0.05, 60) <= 0.05


def test_bounds_half_as_wide_do_not_hold():
    _, p = next(populations(300))
    assert misses(p, np.full(300, 200), 0.05, 60, widen=0.4) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("which", range(5))
def test_bounds_hold_in_many_runs(which):
    _, p = list(populations(400))[which]
    draws = np.where(np.arange(400) % 3, 100, 700)
    assert misses(p, draws, 0.01, 500) <= 0.01


def test_between_two_points_of_the_grid_the_bounds_are_those_of_its_neighbours():
    rng = np.random.default_rng(1)
    p = rng.beta(2, 1, 300)
    counts, draws = rng.binomial(500, p), np.full(300, 500)
    band, x = ecdf_band(counts, draws, 0.01, 0.05), grid(300)
    assert (np.diff(band.low) <= 0).all() and (np.diff(band.high) <= 0).all()
    at = 234
    between = (x[at] + x[at + 1]) / 2
    low, high = band.at([x[at], between, x[at + 1]])
    assert low.tolist() == [band.low[at], band.low[at + 1], band.low[at + 1]]
    assert high.tolist() == [band.high[at], band.high[at], band.high[at + 1]]
    assert [float(v) for v in band.at(0.0)] == [1.0, 1.0] and float(band.at(1.0)[0]) == 0.0
    shares = at_least(counts, draws)
    slow = max(
        max(band.high[j] - shares[j + 1], shares[j] - band.low[j + 1])
        for j in range(len(x) - 1)
        if x[j + 1] > 0.02 and x[j] < 0.98
    )
    assert band.error(counts, draws, 0.02, 0.98) == pytest.approx(slow, abs=1e-12)


def test_many_draws_of_few_images_are_bounded_image_by_image():
    p = np.array([0.1, 0.5, 0.9])
    n = module.MOST_SCORED * 4
    band = ecdf_band((p * n).astype(int), np.full(3, n), 0.001)
    low, high = band.at([0.05, 0.3, 0.7, 0.95])
    assert low.tolist() == high.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_options_out_of_range_are_refused():
    for counts, draws, options in [([], [], {}), ([1], [1, 2], {}), ([3], [2], {}), ([1], [2], {"alpha": 1.0})]:
        with pytest.raises(ValueError, match="must"):
            ecdf_band(counts, draws, **({"alpha": 0.1} | options))


def test_theta_is_what_costs_fewest_draws():
    assert 0.5 < sharpness(100, 15) < 2 and sharpness(5, 15) > 5
    assert sharpness(0.01, 15) == module._THETAS[-1]


def test_the_ladder_has_whole_blocks_and_ends_at_most():
    sizes = ladder(100, 12_345)
    assert sizes[0] == 100 and sizes[-1] == 12_345 and (sizes[:-1] % 100 == 0).all()
    assert (sizes[20:-1] / sizes[19:-2]).max() < RATIO * 1.1
    assert ladder(100, 70).tolist() == [70] and ladder(100, 100).tolist() == [100]


def released_like(images, seed=5):
    """Many images near 1, some in the middle, some near 0."""
    rng = np.random.default_rng(seed)
    parts = [rng.beta(40, 0.4, images // 2), rng.beta(4, 1, images // 4), rng.beta(0.3, 3, images - 3 * (images // 4))]
    return np.concatenate(parts)


def test_a_plan_follows_the_pilot_alone_and_spends_draws_where_images_are_undecided():
    p = released_like(4000)
    pilot = np.random.default_rng(0).binomial(100, p)
    sizes = ladder(100, 100_000)
    step = planned_draws(pilot, 100, sizes, 0.0001, 0.02, FROM, 0.98)
    again = np.random.default_rng(1).permutation(4000)
    assert (planned_draws(pilot[again], 100, sizes, 0.0001, 0.02, FROM, 0.98) == step[again]).all()
    assert all(len(set(step[pilot == count])) == 1 for count in set(pilot.tolist()))
    draws = sizes[step]
    assert draws[pilot == 0].mean() < draws[(pilot > 85) & (pilot < 97)].mean() / 4
    tail = sizes[planned_draws(pilot, 100, sizes, 0.0001, 0.02, FROM, 0.999)]
    assert tail[pilot == 100].mean() > 2 * draws[pilot == 100].mean(), "a band in the tail is paid for there"


def one_run(rule, p, n0, seed):
    """Returns draws an image, the error that is claimed, the actual one, and whether the bounds hold."""
    rng = np.random.default_rng(seed)
    draws = rule.draws_at_looks(rng.binomial(n0, p))
    counts = np.zeros(len(p), dtype=int)
    before = np.zeros(len(p), dtype=int)
    for look in draws:
        counts += rng.binomial(look - before, p)
        before = look
        error = rule.error_after(counts, look)
        if error <= rule.error:
            break
    x = grid(len(p))
    inside = (x >= FROM) & (x <= rule.upto)
    actual = np.abs(at_least(counts, look) - truth(p))[inside].max()
    return n0 + look.mean(), error, actual


def test_a_run_ends_with_the_error_asked_for_and_the_truth_is_within():
    p = released_like(2000)
    rule = DistributionRule(100_000, 100, 100, 0.01, 0.03, 0.98)
    spent = []
    for seed in range(2):
        draws, error, actual = one_run(rule, p, 100, seed)
        assert actual <= error <= 0.03
        spent.append(draws)
    assert np.mean(spent) < 100_000 / 25


def test_draws_do_not_fall_from_look_to_look_and_stay_below_n():
    rule = DistributionRule(2_000, 100, 100, 0.001, 0.01, 0.98)
    draws = rule.draws_at_looks(np.random.default_rng(0).binomial(100, released_like(300)))
    assert draws.shape == (LOOKS, 300) and (np.diff(draws, axis=0) >= 0).all() and draws.max() == 2_000
