"""The options of jobs.train: its own, and every field of the recipe."""

from __future__ import annotations

import argparse

from acr_ray.settings import RECIPES, Recipe, UserError, load_recipe
from jobs._main import Parser, given, number, whole
from jobs._run import add_run_options


def parse(argv: list[str], about: str) -> tuple[Recipe, argparse.Namespace] | None:
    """The recipe with the user's changes, and the job's own options; None where the recipes were to be listed."""
    named = argv[0] if argv and not argv[0].startswith("-") else None
    recipe = load_recipe(named or "digits")
    if (method := method_in(argv)) is not None:  # first, since each method has options of its own
        recipe = recipe.change({"method.name": method}, recipe.name)
    options = parser(recipe, about).parse_args(argv)
    if options.list:
        for name, make in RECIPES.items():
            print(f"{name:24} {make().model.architecture:18} sigma {make().training.sigma}")
        return None
    if named is None:
        raise UserError(f"RECIPE: missing; give a .yaml or .json file, or one of {', '.join(RECIPES)}")
    return recipe.change(given(recipe, options), recipe.name), options


def parser(recipe: Recipe, about: str) -> Parser:
    found = Parser(prog="python -m jobs.train", description=f"{about}\nOptions of the recipe {recipe.name}:")
    found.add_argument("recipe", metavar="RECIPE", nargs="?", help="name or file")
    found.add_argument("--list", action="store_true", help="list the named recipes and stop")
    found.add_argument(
        "--workers", type=whole(1, 100_000), default=1, metavar="N", help="DDP workers [>= 1; default: 1]"
    )
    found.add_argument(
        "--gpus-per-worker", type=number(0), default=0, metavar="G", help="0: CPU and gloo; else NCCL [default: 0]"
    )
    found.add_argument(
        "--cpus-per-worker", type=whole(1, 1024), default=1, metavar="C", help="cores and torch threads [default: 1]"
    )
    found.add_argument(
        "--seed", type=whole(0), default=0, metavar="S", help="of weights, order, views, noise [default: 0]"
    )
    found.add_argument(
        "--checkpoint-every", type=whole(1), default=1, metavar="K", help="epochs between checkpoints [default: 1]"
    )
    found.add_argument(
        "--max-failures", type=whole(0), default=8, metavar="K", help="lost workers survived in all [default: 8]"
    )
    add_run_options(found)
    fields = recipe.flat()
    found.add_settings(recipe, {name: name for name in fields if name != "name"}, fields)
    return found


def method_in(argv: list[str]) -> str | None:
    """The value of ``--method.name`` where it is given."""
    for option, value in zip(argv, [*argv[1:], None], strict=False):  # argv may be empty
        if option == "--method.name":
            return value
        if option.startswith("--method.name="):
            return option.partition("=")[2]
    return None
