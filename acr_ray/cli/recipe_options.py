"""A recipe on the command line: its name or file anywhere among the options, and an option for each of its fields."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from acr_ray.cli.parser import Parser, given, whole
from acr_ray.settings import RECIPES, Recipe, UserError, load_recipe
from acr_ray.settings.recipes import check_addresses


def read_recipe(argv: list[str], make_parser: Callable[[Recipe], Parser]) -> tuple[Recipe | None, argparse.Namespace]:
    """Read a command line whose first argument is a recipe; its own values are the defaults of its options.

    Args:
        argv: the command line.
        make_parser: makes the parser whose help shows a recipe's values; takes ``RECIPE`` as an optional argument.

    Returns:
        The recipe with the user's changes, None if none was named; and the options.

    Raises:
        UserError: names the option or field, and what is allowed.
    """
    name = make_parser(load_recipe("digits")).first_argument(argv)
    recipe = load_recipe(name or "digits")
    if (epochs := _scaled_epochs(argv)) is not None:  # first, so that other options count from the scaled schedule
        recipe = recipe.scaled(epochs)
    if (method := value_in(argv, "--method.name")) is not None:  # first, since each method has options of its own
        recipe = recipe.change({"method.name": method}, recipe.name)
    options = make_parser(recipe).parse_args(argv)
    if name is None:
        return None, options
    changes = given(recipe, options)
    check_addresses(recipe, changes)
    return recipe.change(changes, recipe.name), options


def no_recipe() -> UserError:
    """The complaint that no recipe was named."""
    return UserError(f"RECIPE: missing; give a .yaml or .json file, or one of {', '.join(RECIPES)}")


def add_recipe_options(parser: Parser, recipe: Recipe) -> None:
    """Add ``--scale-epochs`` and an option for each field of the recipe, in groups by section."""
    group = parser.add_argument_group("schedule")
    group.add_argument(
        "--scale-epochs",
        type=whole(1, 100_000),
        metavar="K",
        help="train K epochs, with E_t, milestones, warm-ups and intervals moved in proportion",
    )
    group.add_argument(
        "--init",
        dest="settings:training.init",
        metavar="WEIGHTS",
        help="fine-tune these weights, a checkpoint: short for --training.init",
    )
    fields = recipe.flat()
    names = {name: name for name in fields if name != "name"}
    parser.add_settings(recipe, names, fields, groups=lambda dotted: f"recipe {recipe.name}: {dotted.split('.')[0]}")


def value_in(argv: list[str], name: str) -> str | None:
    """The value of an option that must be known before the parser is made; None if it is not given."""
    for option, value in zip(argv, [*argv[1:], None], strict=False):  # argv may be empty
        if option == name:
            return value
        if option.startswith(f"{name}="):
            return option.partition("=")[2]
    return None


def _scaled_epochs(argv: list[str]) -> int | None:
    """The value of ``--scale-epochs``; what is no number is left to the parser."""
    text = value_in(argv, "--scale-epochs")
    return int(text) if text is not None and text.isdecimal() and 1 <= int(text) <= 100_000 else None
