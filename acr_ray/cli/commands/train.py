"""Train a classifier by a recipe.

RECIPE is a name (--list), or a .yaml or .json file. Leaves checkpoint/, metrics.jsonl and summary.json in DIR. The
same command again resumes the run.
"""

from __future__ import annotations

import argparse

from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import CLUSTER, add_register_option, add_run_options, add_worker_options
from acr_ray.cli.parser import Parser, number, whole
from acr_ray.cli.recipe_options import add_recipe_options, no_recipe, read_recipe
from acr_ray.cli.results import TrainResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings import RECIPES, Recipe
from acr_ray.training.workers import CheckpointPolicy, Workers

#: As acr_ray.training.checkpoint_store has it; importing that here would load torch for --help.
BEST_BY = ("loss", "accuracy")


def run(
    recipe: Recipe,
    options: RunOptions,
    *,
    workers: Workers | None = None,
    seed: int = 0,
    policy: CheckpointPolicy | None = None,
) -> TrainResult:
    """Train a classifier on Ray, or resume the run that the results folder holds.

    Args:
        recipe: what is trained, and how; see `acr_ray.settings.load_recipe`.
        options: where results go, and how they are tracked.
        workers: DDP workers and their hardware; None: one, on a CPU.
        seed: of weights, order, views and noise; >= 0.
        policy: how often checkpoints are made, and which are kept; None: its defaults.

    Raises:
        UserError: recipe, data, cluster or folder do not allow it; nothing was made.
        CommandFailed: training broke off; the same call resumes it.
    """
    from acr_ray.cli.drivers.training import train  # loads torch, which --help and a mistake need not wait for

    return train(recipe.with_absolute_paths(), options, workers or Workers(), seed, policy or CheckpointPolicy())


def main(argv: list[str]) -> None:
    """Read the command line, and train, or show what would be done."""
    parsed = parse(argv)
    if parsed is None:
        for name, make in RECIPES.items():
            print(f"{name:24} {make().model.architecture:18} sigma {make().training.sigma}")
        return
    recipe, options = parsed
    workers, policy, run_options = workers_of(options), checkpoint_policy(options), RunOptions.of(options)
    if options.dry_run:
        from acr_ray.cli.drivers.dry_run import print_dry_run

        print_dry_run(recipe.with_absolute_paths(), run_options, workers, policy)
    else:
        run(recipe, run_options, workers=workers, seed=options.seed, policy=policy)


def parse(argv: list[str]) -> tuple[Recipe, argparse.Namespace] | None:
    """The recipe with the user's changes, and the command's own options; None if the recipes are to be listed."""
    recipe, options = read_recipe(argv, parser)
    if options.list:
        return None
    if recipe is None:
        raise no_recipe()
    return recipe, options


def parser(recipe: Recipe) -> Parser:
    """Make the parser whose help shows the values of this recipe."""
    usage = "%(prog)s RECIPE --out DIR [--workers N] [--section.field VALUE …] [OPTIONS]"
    parser = Parser(prog=command_line("train"), usage=usage, description=__doc__)
    group = parser.add_argument_group("what to train")
    group.add_argument("recipe", metavar="RECIPE", nargs="?", help="name or file")
    group.add_argument("--list", action="store_true", help="list the named recipes and stop")
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="S", help="of weights, order, views, noise [default: 0]"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print what would be done and how long it takes, and stop"
    )
    _add_cluster_options(parser)
    _add_checkpoint_options(parser)
    group = add_run_options(parser)
    group.add_argument("--profile", action="store_true", help="leave a torch profiler trace of a few steps in profile/")
    add_register_option(group)
    add_recipe_options(parser, recipe)
    return parser


def _add_cluster_options(parser: Parser) -> None:
    group = parser.add_argument_group(CLUSTER)
    group.add_argument(
        "--workers",
        type=_workers,
        default=(1, None),
        metavar="N|N:M",
        help="DDP workers; 2:8: continue with as few as 2, use up to 8 if there is room [>= 1; default: 1]",
    )
    add_worker_options(group)
    group.add_argument(
        "--max-failures", type=whole(0), default=8, metavar="K", help="lost workers survived in all [default: 8]"
    )
    group.add_argument(
        "--resize-seconds",
        type=number(1),
        default=60.0,
        metavar="S",
        help="with --workers N:M: between looks for room for more [>= 1; default: 60]",
    )


def _add_checkpoint_options(parser: Parser) -> None:
    group = parser.add_argument_group("checkpoints")
    group.add_argument(
        "--checkpoint-every", type=whole(1), default=1, metavar="K", help="epochs between checkpoints [default: 1]"
    )
    group.add_argument(
        "--checkpoint-minutes",
        type=number(0.01),
        metavar="M",
        help="minutes between checkpoints within an epoch [>= 0.01; default: none there]",
    )
    group.add_argument(
        "--keep-checkpoints", type=whole(1, 1000), default=2, metavar="K", help="the last K, and the best [default: 2]"
    )
    group.add_argument(
        "--best-by", choices=BEST_BY, default="loss", help="which checkpoint is the best [default: loss]"
    )


def workers_of(options: argparse.Namespace) -> Workers:
    """The run's hardware."""
    least, most = options.workers
    return Workers(least, options.gpus_per_worker, options.cpus_per_worker, most)


def checkpoint_policy(options: argparse.Namespace) -> CheckpointPolicy:
    """The run's checkpoints and the rest that changes nothing of the result."""
    return CheckpointPolicy(
        every=options.checkpoint_every,
        minutes=options.checkpoint_minutes,
        last=options.keep_checkpoints,
        best_by=options.best_by,
        max_failures=options.max_failures,
        resize_seconds=options.resize_seconds,
        profile=options.profile,
    )


def _workers(text: str) -> tuple[int, int | None]:
    """``2`` or ``2:8``."""
    least, colon, most = text.partition(":")
    one = whole(1, 100_000)
    workers = (one(least), one(most) if colon else None)
    if workers[1] is not None and workers[1] < workers[0]:
        raise argparse.ArgumentTypeError(f"{text}: the second number must not be less than the first")
    return workers
