"""The sequential two-class rule: valid at all looks, and what it answers beside all n draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from acr_ray.settings import CertifySettings
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.bounds import lower_bound, radius, upper_bound
from acr_ray.smoothing.rules import Draws, geometric_looks
from acr_ray.smoothing.stopping import claim_at, rule_for
from acr_ray.smoothing.two_class import two_class_p_lower
from acr_ray.smoothing.two_class_rules import TwoClassRadiiRule
from tests.smoothing.crossing import crossing

ALPHA, LOOKS, PATHS = 0.05, geometric_looks(1000, 20, 1.6), 200_000
RADII = (0.0, 0.25, 0.5, 1.0)


@pytest.fixture(scope="module")
def rule() -> TwoClassRadiiRule:
    return TwoClassRadiiRule([claim_at(r, 1.0) for r in RADII], LOOKS, ALPHA)


def simulated(p: tuple[float, ...], paths: int = PATHS, seed: int = 0) -> np.ndarray:
    """Cumulative counts by class and look, (paths, classes, looks)."""
    rng, steps = np.random.default_rng(seed), np.diff(LOOKS, prepend=0)
    return np.cumsum([rng.multinomial(m, p, paths) for m in steps], axis=0).transpose(1, 2, 0)


def at_boundary(p_c: float, r: float) -> float:
    """The p_A whose two-class radius beside p_c is r, at sigma 1."""
    return float(special.ndtr(special.ndtri(p_c) + 2 * r))


@pytest.mark.parametrize(
    ("p_c", "r"),
    [(0.5, 0.0), (0.3, 0.25), (0.1, 0.5)]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in ((0.3, 0.0), (0.1, 0.0), (0.02, 0.5), (0.05, 1.0))],
)
def test_a_radius_just_out_of_reach_is_claimed_at_most_with_probability_alpha(
    rule: TwoClassRadiiRule, p_c: float, r: float
) -> None:
    p_a = at_boundary(p_c, r) - 1e-9
    rest = max(1 - p_a - p_c, 0.0)
    drawn = simulated((p_a, p_c, rest * 0.6, rest * 0.4))
    claimed = rule.claimed(drawn[:, 0], drawn[:, 1:])
    out_of_reach = RADII.index(r) + 1  # claims of r or more
    wrong = (claimed[:, -1] >= out_of_reach).mean()  # claims never shrink: at any look at all
    assert wrong <= ALPHA + 5 * np.sqrt(ALPHA / PATHS)


def test_each_boundary_is_crossed_at_most_with_half_of_alpha(rule: TwoClassRadiiRule) -> None:
    for at in (0, len(rule._z) // 3, len(rule._z) // 2, -1):
        p = float(special.ndtr(rule._z[at]))
        assert crossing(p, LOOKS, rule._boundaries[:, at]) <= ALPHA / 2


def test_looking_often_with_the_fixed_bound_would_be_caught() -> None:
    p_a = at_boundary(0.3, 0.0) - 1e-9
    drawn = simulated((p_a, 0.3, 0.4), paths=20_000)
    top, second = drawn[:, 0], drawn[:, 1]
    claims = two_class_p_lower(top, second, np.array(LOOKS), ALPHA)
    assert (claims > 0).any(axis=1).mean() > ALPHA + 0.02


def test_the_bounds_behind_a_claim_are_close_to_the_fixed_ones(rule: TwoClassRadiiRule) -> None:
    counts = np.array([[1, 500, 900]])
    path = counts.T * np.array(LOOKS) // 1000
    sequential = special.ndtr(rule.lower_z(path)[:, -1])
    fixed = lower_bound(counts[0], 1000, ALPHA / 2)
    assert (sequential <= fixed + 1e-12).all()
    assert (sequential[1:] > fixed[1:] - 0.03).all()


def test_one_image_is_judged_as_many_are(rule: TwoClassRadiiRule) -> None:
    drawn = simulated((0.55, 0.2, 0.15, 0.1), paths=50, seed=3)
    claimed = rule.claimed(drawn[:, 0], drawn[:, 1:])
    for paths, expected in zip(drawn, claimed, strict=True):
        looks = [{c: int(v) for c, v in enumerate(counts) if v} for counts in paths.T]
        last = rule.judge_draws(Draws(0, {0: 60, 1: 40}, looks))
        assert last.stop
        assert last.p_lower == (0.0, *(claim_at(r, 1.0) for r in RADII))[expected[-1]]


def settings(**changes: object) -> CertifySettings:
    given = {"sigma": 0.5, "dataset": "digits", "n": 2000, "certificate": "two-class", **changes}
    return CertifySettings.build(given, "certify")


def test_a_hopeless_image_is_given_up_and_an_easy_one_decided_early() -> None:
    rule = rule_for(settings(stopping="radii", radii=(0.0, 0.25)))

    def stopped(shares: tuple[float, ...]) -> tuple[int, str, float]:
        select = {c: round(100 * s) for c, s in enumerate(shares)}
        looks: list[dict[int, int]] = []
        for n in rule.looks:
            looks.append({c: round(n * s) for c, s in enumerate(shares)})
            judged = rule.judge_draws(Draws(0, select, looks))
            if judged.stop:
                return n, judged.reason, float(radius(judged.p_lower, 0.5))
        raise AssertionError("did not stop at n")

    n, reason, claimed = stopped((0.98, 0.01, 0.01))
    assert (reason, claimed >= 0.25) == ("decided", True) and n < 400
    n, reason, claimed = stopped((0.34, 0.33, 0.33))
    assert (reason, claimed) == ("futile", 0.0) and n < 2000
    # Below one half, and yet certified: the runner-up is far enough below.
    assert stopped((0.48, 0.26, 0.26))[2] > 0.0


def test_the_kind_is_part_of_a_certification_and_absent_where_it_is_the_old_one() -> None:
    assert "certificate" not in settings(certificate="one-class").identity()
    assert settings().identity()["certificate"] == "two-class"
    assert settings().sha256 != settings(certificate="one-class").sha256


@pytest.mark.parametrize("change", [{"stopping": "width"}, {"bound": "randomized"}])
def test_what_has_no_two_class_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="two-class"):
        settings(**change)


def test_a_class_seen_by_nobody_counts_with_no_draws() -> None:
    n = 2000
    rule = rule_for(settings(n=n))
    only = rule.judge_draws(Draws(0, {0: 100}, [{0: n}]))
    assert only.p_lower == lower_bound(n, n, 0.001)
    assert upper_bound(0, n, 0.0005) < 0.004


def test_what_may_be_claimed_at_a_look_is_the_same_whoever_stops_there(rule: TwoClassRadiiRule) -> None:
    select = {0: 9, 1: 1}
    assert rule.claim_of_draws(Draws(0, select, [])) == 0.0
    claims = np.array([0.0, *(claim_at(r, 1.0) for r in RADII)])
    for path in simulated((0.8, 0.15, 0.05), paths=20, seed=3):
        looks = [{c: int(k) for c, k in enumerate(column) if k} for column in path.T]
        claimed = rule.claimed(path[0], path[1:])
        for upto in range(1, len(LOOKS) + 1):
            draws = Draws(0, select, looks[:upto])
            assert rule.claim_of_draws(draws) == claims[claimed[upto - 1]]
            judged = rule.judge_draws(draws)
            assert not judged.stop or judged.p_lower == rule.claim_of_draws(draws)
