"""The options of jobs.train: its own, and every field of the recipe."""

from __future__ import annotations

import argparse

from acr_ray.settings import RECIPES, Recipe, UserError, load_recipe
from acr_ray.settings.recipes import check_addresses
from acr_ray.training.workers import CheckpointPolicy, Workers
from jobs._main import Parser, given, number, whole
from jobs._run import add_run_options

BEST = (
    "loss",
    "accuracy",
)  # as acr_ray.training.checkpoint_store has it; importing that here would load torch for --help


def parse(argv: list[str], about: str) -> tuple[Recipe, argparse.Namespace] | None:
    """The recipe with the user's changes, and the job's own options; None where the recipes were to be listed."""
    named = parser(load_recipe("digits"), about).first_word(argv)
    recipe = load_recipe(named or "digits")
    if (epochs := scaled_epochs(argv)) is not None:  # first, so that other options count from the scaled schedule
        recipe = recipe.scaled(epochs)
    if (method := method_in(argv)) is not None:  # first, since each method has options of its own
        recipe = recipe.change({"method.name": method}, recipe.name)
    options = parser(recipe, about).parse_args(argv)
    if options.list:
        for name, make in RECIPES.items():
            print(f"{name:24} {make().model.architecture:18} sigma {make().training.sigma}")
        return None
    if named is None:
        raise UserError(f"RECIPE: missing; give a .yaml or .json file, or one of {', '.join(RECIPES)}")
    changes = given(recipe, options)
    check_addresses(recipe, changes)
    return recipe.change(changes, recipe.name), options


def parser(recipe: Recipe, about: str) -> Parser:
    found = Parser(prog="python -m jobs.train", description=f"{about}\nOptions of the recipe {recipe.name}:")
    found.add_argument("recipe", metavar="RECIPE", nargs="?", help="name or file")
    found.add_argument("--list", action="store_true", help="list the named recipes and stop")
    found.add_argument(
        "--workers", type=_workers, default=(1, None), metavar="N|N:M",
        help="DDP workers; 2:8: go on with as few as 2, use up to 8 where there is room [>= 1; default: 1]",
    )  # fmt: skip
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
        "--checkpoint-minutes", type=number(0.01), metavar="M",
        help="minutes between checkpoints within an epoch [>= 0.01; default: none there]",
    )  # fmt: skip
    found.add_argument(
        "--keep-checkpoints", type=whole(1, 1000), default=2, metavar="K", help="the last K, and the best [default: 2]"
    )
    found.add_argument("--best-by", choices=BEST, default="loss", help="which checkpoint is the best [default: loss]")
    found.add_argument(
        "--max-failures", type=whole(0), default=8, metavar="K", help="lost workers survived in all [default: 8]"
    )
    found.add_argument(
        "--resize-seconds", type=number(1), default=60.0, metavar="S",
        help="with --workers N:M: between looks for room for more [>= 1; default: 60]",
    )  # fmt: skip
    add_schedule_option(found)
    found.add_argument(
        "--dry-run", action="store_true", help="print what would be done and how long it takes, and stop"
    )
    found.add_argument("--profile", action="store_true", help="leave a torch profiler trace of a few steps in profile/")
    add_run_options(found)
    fields = recipe.flat()
    found.add_settings(recipe, {name: name for name in fields if name != "name"}, fields)
    return found


def workers_of(options: argparse.Namespace) -> Workers:
    """The run's hardware."""
    least, most = options.workers
    return Workers(least, options.gpus_per_worker, options.cpus_per_worker, most)


def checkpoint_policy(options: argparse.Namespace) -> CheckpointPolicy:
    """The run's checkpoints and the rest that changes nothing of the result."""
    return CheckpointPolicy(
        every=options.checkpoint_every, minutes=options.checkpoint_minutes, last=options.keep_checkpoints,
        best_by=options.best_by, max_failures=options.max_failures, resize_seconds=options.resize_seconds,
        profile=options.profile,
    )  # fmt: skip


def _workers(text: str) -> tuple[int, int | None]:
    """``2`` or ``2:8``."""
    least, colon, most = text.partition(":")
    one = whole(1, 100_000)
    found = (one(least), one(most) if colon else None)
    if found[1] is not None and found[1] < found[0]:
        raise argparse.ArgumentTypeError(f"{text}: the second number must not be less than the first")
    return found


def add_schedule_option(parser: Parser) -> None:
    parser.add_argument(
        "--scale-epochs", type=whole(1, 100_000), metavar="K",
        help="train K epochs, with E_t, milestones, warm-ups and intervals moved in proportion",
    )  # fmt: skip


def scaled_epochs(argv: list[str]) -> int | None:
    """The value of ``--scale-epochs`` where it is given; what is no number is left to the parser."""
    text = _value_in(argv, "--scale-epochs")
    return int(text) if text is not None and text.isdecimal() and 1 <= int(text) <= 100_000 else None


def method_in(argv: list[str]) -> str | None:
    """The value of ``--method.name`` where it is given."""
    return _value_in(argv, "--method.name")


def _value_in(argv: list[str], name: str) -> str | None:
    for option, value in zip(argv, [*argv[1:], None], strict=False):  # argv may be empty
        if option == name:
            return value
        if option.startswith(f"{name}="):
            return option.partition("=")[2]
    return None
