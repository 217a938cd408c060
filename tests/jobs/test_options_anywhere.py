"""Options may stand before or after what they belong to, and a misspelt one gets a hint."""

import pytest

from acr_ray.cli.commands import audit, certify, report, train, tune
from acr_ray.settings import UserError


@pytest.mark.parametrize(
    "argv",
    [
        ["cifar10-0.5", "--out", "x", "--workers", "2"],
        ["--out", "x", "cifar10-0.5", "--workers", "2"],
        ["--out=x", "--workers=2", "cifar10-0.5"],
        ["--overwrite", "cifar10-0.5", "--out", "x", "--workers", "2"],
        ["--no-tracking", "--method.name", "smoothadv", "--method.epsilon", "0.5", "--workers", "2", "cifar10-0.5"],
    ],
)
def test_the_recipe_may_stand_anywhere(argv):
    recipe, options = train.parse(argv)
    assert recipe.name == "cifar10-0.5" and options.workers == (2, None)
    assert recipe.method.name == ("smoothadv" if "smoothadv" in argv else "gaussian")


def test_the_recipe_of_a_search_may_stand_anywhere():
    arguments, options = tune.parse(["--trials", "3", "--no-trunk", "digits", "--out", "x"])
    assert arguments.recipe.name == "digits" and arguments.trials == 3 and not arguments.trunks and options.out == "x"


@pytest.mark.parametrize(
    "argv", [["a", "b", "--out", "x"], ["--out", "x", "a", "b"], ["a", "--out", "x", "b"], ["a", "--out=x", "b"]]
)
def test_several_sources_or_runs_may_stand_around_options(argv):
    assert report.parser().parse_args(argv).source == ["a", "b"] == audit.parser().parse_args(argv).runs
    assert report.parser().parse_args(argv).out == "x"


def test_a_checkpoint_may_stand_anywhere():
    for argv in (["m", "--n", "100", "--compile"], ["--compile", "m", "--n", "100"], ["--n", "100", "--compile", "m"]):
        options = certify.parser().parse_args(argv)
        assert options.checkpoint == "m" and getattr(options, "settings:n") == "100"


def test_what_is_missing_is_still_missing():
    with pytest.raises(UserError, match="RECIPE: missing"):
        train.parse(["--out", "digits"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [("--attack.epsilom", "--attack.epsilon"), ("--worker", "--workers"), ("--overwrit=1", "--overwrite")],
)
def test_a_misspelt_option_gets_a_hint(given, meant):
    with pytest.raises(UserError, match=rf"unrecognized arguments: {given}.*; did you mean .*{meant}"):
        train.parse(["digits", "--out", "x", given, "2"])
    with pytest.raises(UserError) as caught:
        train.parse(["digits", "--nothing-like-it", "2"])
    assert "did you mean" not in str(caught.value)
