"""The paired test: its errors by all orders of a few images and by simulation, and how soon it ends."""

import itertools

import numpy as np
import pytest

from acr_ray.serving.paired import HOLDS, OPEN, VIOLATED, PairedTest


def answer(differences, margin, images="all", alpha=0.05, alpha_violated=None):
    test = PairedTest(len(differences) if images == "all" else images, margin, alpha, alpha_violated or alpha)
    for d in differences:
        if test.add(int(d)) != OPEN:
            break
    return test.answer, test.seen


@pytest.mark.parametrize(
    "values", [(-1, -1, 0, 0, 1, 0, 0), (-1, -1, -1, 1, 1, 0, 0), (0,) * 6 + (-1,), (-1,) * 4 + (1,) * 3]
)
@pytest.mark.parametrize("margin", [0.0, 0.13, 0.2, -0.1])
def test_over_all_orders_of_a_few_images_it_errs_as_seldom_as_promised(values, margin):
    alpha, wrong, orders = 0.4, 0, 0
    truth = HOLDS if np.mean(values) >= -margin - 1e-12 else VIOLATED
    for order in itertools.permutations(values):
        found, _ = answer(order, margin, alpha=alpha)
        assert found != OPEN, "once all images are seen the answer is known"
        wrong += found != truth
        orders += 1
    assert wrong / orders <= alpha


@pytest.mark.parametrize("margin", [0.0, 0.02, -0.02])
@pytest.mark.parametrize("kind", ["images", "population"])
def test_at_the_limit_it_errs_as_seldom_as_promised_in_many_runs(margin, kind):
    """Just below the limit "holds" is wrong, at it "violated" is; discordant images are few or many."""
    rng, alpha, runs, images = np.random.default_rng(3), 0.1, 100, 200
    for discordant in (0.1, 0.6):
        wrong = {HOLDS: 0, VIOLATED: 0}
        for false, shift in ((HOLDS, -1), (VIOLATED, 0)):
            lost = round(images * (discordant + margin) / 2) - (0 if false == VIOLATED else -1)
            won = round(images * discordant) - lost
            values = np.array([-1] * lost + [1] * won + [0] * (images - lost - won))
            assert (values.mean() >= -margin) == (false == VIOLATED), shift
            for _ in range(runs):
                drawn = rng.permutation(values) if kind == "images" else rng.choice(values, images)
                found, _ = answer(drawn, margin, "all" if kind == "images" else None, alpha)
                wrong[false] += found == false
        assert max(wrong.values()) / runs <= alpha


def test_the_two_errors_have_levels_of_their_own():
    same = np.zeros(100_000, dtype=int)
    _, soon = answer(same, 0.005, None, alpha=0.05, alpha_violated=1e-9)
    _, late = answer(same, 0.005, None, alpha=1e-9, alpha_violated=0.05)
    assert soon < late
    worse = np.tile([0, 0, 0, -1], 10_000)
    assert answer(worse, 0.005, None, 1e-9, 0.05)[1] < answer(worse, 0.005, None, 0.05, 1e-9)[1]


def test_equal_models_pass_nearly_as_soon_as_any_test_could():
    """No -1 among t images: a mean at the limit has at least the chance (1 - margin)**t of that."""
    found, seen = answer(np.zeros(10_000, dtype=int), 0.005, None, alpha=0.05)
    least = np.log(0.05) / np.log(1 - 0.005)
    assert found == HOLDS and least <= seen < 2 * least


def test_clear_cases_end_soon_and_close_ones_are_counted_to_the_end():
    rng = np.random.default_rng(0)
    bad = rng.permutation([-1] * 1000 + [0] * 9000)
    found, seen = answer(bad, 0.005)
    assert found == VIOLATED and seen < 1000
    close = rng.permutation([-1] * 505 + [1] * 455 + [0] * 9040)
    assert answer(close, 0.005)[0] == HOLDS and answer(close, 0.0049)[0] == VIOLATED


def test_a_limit_that_no_difference_can_miss_needs_few_images():
    test = PairedTest(10, 0.5, 0.05, 0.05)
    for _ in range(7):
        test.add(0)
    assert test.answer == HOLDS, "three images left cannot take 5 away"


def test_what_is_no_difference_is_refused():
    test = PairedTest(1, 0.0, 0.1, 0.1)
    with pytest.raises(ValueError, match="allowed: -1, 0, 1"):
        test.add(2)
    test.add(0)
    with pytest.raises(ValueError, match="image 2 of 1"):
        test.add(0)
