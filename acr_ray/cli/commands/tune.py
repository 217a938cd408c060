"""Search hyperparameters.

Trials run on Ray Tune and fork from trunks: what they have in common before epoch E_t is trained once. They are
measured on images held out from training. The same command again resumes the search. Leaves trials.parquet, best.json
(a recipe for train), report.html and summary.json in DIR.
"""

from __future__ import annotations

from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import CLUSTER, add_run_options, add_worker_options
from acr_ray.cli.parser import Parser, whole
from acr_ray.cli.recipe_options import add_recipe_options, no_recipe, read_recipe
from acr_ray.cli.results import TuneResult
from acr_ray.cli.session import RunOptions
from acr_ray.cli.tune_arguments import TuneArguments
from acr_ray.settings import Recipe
from acr_ray.training.workers import Workers
from acr_ray.tuning.validation_settings import ALLOWED, ValidationSettings

SEARCHES, SCHEDULERS = ("optuna", "random", "grid"), ("asha", "fifo")
VALIDATION = {
    "share": "validation",
    "most": "validation-images",
    "n": "validation-n",
    "alpha": "validation-alpha",
    "stopping": "validation-stopping",
    "tolerance": "validation-tolerance",
}


def run(arguments: TuneArguments, options: RunOptions) -> TuneResult:
    """Search on Ray Tune, or resume the search that the results folder holds.

    Args:
        arguments: the recipe, the space, and how the search goes.
        options: where results go, and how they are tracked.

    Raises:
        UserError: recipe, space, data, cluster or folder do not allow it; nothing was made.
        CommandFailed: trials were lost; the same call tries them again.
    """
    arguments.check()
    from acr_ray.cli.drivers.search import tune  # loads torch, which --help and a mistake need not wait for

    return tune(arguments, options)


def main(argv: list[str]) -> None:
    """Read the command line, and search."""
    run(*parse(argv))


def parse(argv: list[str]) -> tuple[TuneArguments, RunOptions]:
    """Raises UserError naming the option or field, and what is allowed."""
    recipe, options = read_recipe(argv, parser)
    if recipe is None:
        raise no_recipe()
    given = {field: getattr(options, f"validation:{field}") for field in VALIDATION}
    values = {field: value for field, value in given.items() if value is not None}
    arguments = TuneArguments(
        recipe=recipe,
        trials=options.trials,
        metric=options.metric,
        search=options.search,
        scheduler=options.scheduler,
        space=tuple(options.space),
        baseline=options.baseline,
        trunks=not options.no_trunk,
        workers=Workers(options.workers, options.gpus_per_worker, options.cpus_per_worker),
        concurrent=options.concurrent,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
        max_failures=options.max_failures,
        validation=ValidationSettings.build(values, "--validation"),
    )
    arguments.check()
    return arguments, RunOptions.of(options)


def parser(recipe: Recipe) -> Parser:
    """Make the parser whose help shows the values of this recipe."""
    usage = "%(prog)s RECIPE --out DIR --trials K [--metric M] [--space FIELD=…] [OPTIONS]"
    parser = Parser(prog=command_line("tune"), usage=usage, description=__doc__)
    _add_search_options(parser)
    group = parser.add_argument_group("validation")
    for field, option in VALIDATION.items():
        info = ValidationSettings.model_fields[field]
        text = f"{info.description} [default: {info.default}]".replace("%", "%%")
        group.add_argument(f"--{option}", dest=f"validation:{field}", metavar="VALUE", help=text)
    _add_cluster_options(parser)
    add_run_options(parser)
    add_recipe_options(parser, recipe)
    return parser


def _add_search_options(parser: Parser) -> None:
    add = parser.add_argument_group("what to search").add_argument
    add("recipe", metavar="RECIPE", nargs="?", help="name or file")
    add("--trials", type=whole(1, 100_000), default=12, metavar="K", help="how many [>= 1; default: 12]")
    add("--metric", default="acr", metavar="M,M,…", help=f"{ALLOWED}; ASHA goes by the first [default: acr]")
    add("--search", choices=SEARCHES, default="optuna", help="optuna: TPE [default: optuna]")
    add("--scheduler", choices=SCHEDULERS, default="asha", help="asha: end poor trials early [default: asha]")
    add(
        "--space",
        action="append",
        default=[],
        metavar="FIELD=…",
        help="a,b,c or low..high or log:low..high of a recipe's field; may be repeated, then only these are searched "
        "[default: m, E_t, p_t, T and ε around the recipe's values]",
    )
    add(
        "--no-baseline",
        dest="baseline",
        action="store_false",
        help="leave plain Gaussian training of the recipe out; else the best trial is judged against it",
    )
    add("--no-trunk", action="store_true", help="train every trial from the beginning")
    add("--seed", type=whole(0), default=0, metavar="S", help="of trials, validation images, search [default: 0]")


def _add_cluster_options(parser: Parser) -> None:
    group = parser.add_argument_group(CLUSTER)
    add = group.add_argument
    add("--workers", type=whole(1, 100_000), default=1, metavar="N", help="DDP workers of a trial [>= 1; default: 1]")
    add_worker_options(group)
    add("--concurrent", type=whole(1, 100_000), metavar="C", help="trials at once [default: all that fit]")
    add("--checkpoint-every", type=whole(1), default=5, metavar="K", help="epochs between checkpoints [default: 5]")
    add("--max-failures", type=whole(0), default=8, metavar="K", help="lost processes of a trial survived [default: 8]")
