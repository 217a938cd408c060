"""Options may stand before or after what they belong to, and a misspelt one gets a hint."""

import pytest

from acr_ray.settings import UserError
from jobs import _train_options, _tune_options


@pytest.mark.parametrize(
    "argv",
    [
        ["cifar10-0.5", "--out", "x", "--workers", "2"], ["--out", "x", "cifar10-0.5", "--workers", "2"],
        ["--out=x", "--workers=2", "cifar10-0.5"], ["--overwrite", "cifar10-0.5", "--out", "x", "--workers", "2"],
        ["--no-tracking", "--method.name", "smoothadv", "--method.epsilon", "0.5", "--workers", "2", "cifar10-0.5"],
    ],
)  # fmt: skip
def test_the_recipe_may_stand_anywhere(argv):
    recipe, options = _train_options.parse(argv, "")
    assert recipe.name == "cifar10-0.5" and options.workers == (2, None)
    assert recipe.method.name == ("smoothadv" if "smoothadv" in argv else "gaussian")


def test_the_recipe_of_a_search_may_stand_anywhere():
    asked = _tune_options.parse(["--trials", "3", "--no-trunk", "digits", "--out", "x"], "")
    assert asked.recipe.name == "digits" and asked.trials == 3 and asked.options.no_trunk


def test_what_is_missing_is_still_missing():
    with pytest.raises(UserError, match="RECIPE: missing"):
        _train_options.parse(["--out", "digits"], "")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("--attack.epsilom", "--attack.epsilon"), ("--worker", "--workers"), ("--overwrit=1", "--overwrite")],
)
def test_a_misspelt_option_gets_a_hint(given, meant):
    with pytest.raises(UserError, match=rf"unrecognized arguments: {given}.*; did you mean .*{meant}"):
        _train_options.parse(["digits", "--out", "x", given, "2"], "")
    with pytest.raises(UserError) as caught:
        _train_options.parse(["digits", "--nothing-like-it", "2"], "")
    assert "did you mean" not in str(caught.value)
