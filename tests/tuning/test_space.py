"""The search space: what may be asked for, what is refused, and lists of trials."""

import math

import pytest

from acr_ray.settings import UserError, load_recipe
from acr_ray.tuning.space import Domain, default_space, grid_points, parse_space, trial_list

DIGITS = load_recipe("digits")


def test_lists_ranges_and_log_ranges():
    space = parse_space(
        ["training.m=2,4,2", "training.e_t=10..30", "attack.epsilon=log:0.1..1", "attack.norm=l2,linf"], DIGITS
    )
    m, e_t, epsilon, norm = space.domains
    assert m == Domain("training.m", (2, 4))
    assert e_t == Domain("training.e_t", low=10, high=30, whole=True)
    assert epsilon == Domain("attack.epsilon", low=0.1, high=1.0, log=True)
    assert norm.values == ("l2", "linf")
    assert space.text()["attack.epsilon"] == "log:0.1..1.0" and space.text()["training.e_t"] == "10..30"
    assert [e_t.at(u) for u in (0, 0.5, 0.999999)] == [10, 20, 30]
    assert epsilon.at(0.5) == pytest.approx(math.sqrt(0.1), rel=1e-5)
    assert parse_space([f"{f}={t}" for f, t in space.text().items()], DIGITS) == space


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["training.e_t=20,60"], "training.e_t = 60: past the last epoch"),
        (["training.e_t=20..60"], "training.e_t = 60: past the last epoch"),
        (["training.m=2,3"], "training.m = 3: must divide"),
        (["training.m=1..4"], "training.m = 3: must divide"),
        (["attack.epsilon=1..1"], "attack.epsilon=1..1: empty range"),
        (["attack.epsilon=2..1"], "attack.epsilon=2..1: empty range"),
        (["attack.epsilon=log:0..1"], "attack.epsilon=log:0..1: a log range"),
        (["attack.epsilon=log:1"], "attack.epsilon=log:1: log: needs a range"),
        (["attack.epsilon=-1,1"], "attack.epsilon"),
        (["attack.epsilon=a..b"], "attack.epsilon=a..b"),
        (["attack.steps=1.5..3"], "attack.steps=1.5..3"),
        (["attack.steps="], "attack.steps: empty"),
        (["attack.steps"], "attack.steps: not FIELD="),
        (["attack.steps=1", "attack.steps=2"], "attack.steps: given twice"),
        (["attack.stepz=1"], "attack.stepz: unknown field"),
        (["data.dataset=digits,cifar10"], "data.dataset: is the same"),
        (["discard.p_t=0.5,1.5"], "discard.p_t"),
        (["training.e_t=20,30", "training.epochs=25,60"], "training.e_t"),
    ],
)
def test_bad_spaces_name_the_field(texts, named):
    with pytest.raises(UserError, match=named.replace(".", r"\.")):
        parse_space(texts, DIGITS)


def test_fields_of_a_part_that_is_off_are_refused():
    gaussian = load_recipe("digits-gaussian")
    for text in ("attack.steps=1,2", "training.e_t=10,20", "discard.p_t=0.3,0.4"):
        with pytest.raises(UserError, match="changes nothing in digits-gaussian"):
            parse_space([text], gaussian)
    assert parse_space(["attack.enabled=true,false", "attack.steps=1,2"], gaussian).fields


def test_two_fields_that_fit_only_together():
    space = parse_space(["training.epochs=80,100", "training.e_t=20,70"], DIGITS)
    assert space.forks(DIGITS) == (20, 70) and space.epochs(DIGITS) == 80


@pytest.mark.parametrize("name", ["digits", "cifar10-0.25", "cifar10-0.5", "cifar10-1.0", "imagenet-0.25"])
def test_the_default_space_holds_the_papers_point_and_comes_first(name):
    recipe = load_recipe(name)
    space = default_space(recipe)
    own = space.own_point(recipe)
    assert own and own["attack.epsilon"] == recipe.attack.epsilon
    assert ("training.e_t" in own) == (recipe.training.e_t > 0)
    for search in ("random", "grid"):
        points = trial_list(space, recipe, search, 9, 3)
        assert points[0] == own and len(points) == 9
        assert all(recipe.change(point) for point in points)


def test_lists_of_trials_are_functions_of_the_seed():
    space = default_space(DIGITS)
    first = trial_list(space, DIGITS, "random", 20, 1)
    assert first == trial_list(space, DIGITS, "random", 20, 1) and first[:5] == trial_list(
        space, DIGITS, "random", 5, 1
    )
    assert first != trial_list(space, DIGITS, "random", 20, 2)
    assert all(domain.contains(point[domain.field]) for point in first for domain in space.domains)
    small = parse_space(["training.m=2,4", "attack.steps=1..3"], DIGITS)
    grid = trial_list(small, DIGITS, "grid", 100, 1)
    assert sorted(map(str, grid)) == sorted(map(str, grid_points(small))) and len(grid) == 6
    assert grid[0] == {"training.m": 4, "attack.steps": 3}
    drawn = trial_list(small, DIGITS, "random", 6, 1)
    assert sorted(map(str, drawn)) == sorted(map(str, grid)), "no point twice while there are others"


def test_a_grid_takes_the_ends_and_the_middle_of_a_range():
    space = parse_space(["discard.p_t=0.2..0.6", "attack.epsilon=log:0.1..0.4", "attack.steps=1..2"], DIGITS)
    values = [domain.grid() for domain in space.domains]
    assert values[0] == pytest.approx((0.2, 0.4, 0.6)) and values[1] == pytest.approx((0.1, 0.2, 0.4))
    assert values[2] == (1, 2)
