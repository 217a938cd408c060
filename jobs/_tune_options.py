"""The options of jobs.tune: its own, and every field of the recipe."""

from __future__ import annotations

import argparse
from typing import Any

from acr_ray.settings import RECIPES, Recipe, UserError, load_recipe
from acr_ray.settings.recipes import check_addresses
from acr_ray.tuning.validation_settings import ALLOWED, ValidationSettings
from jobs._main import Parser, given, number, whole
from jobs._run import add_run_options
from jobs._train_options import add_schedule_option, method_in, scaled_epochs

SEARCHES, SCHEDULERS = ("optuna", "random", "grid"), ("asha", "fifo")
VALIDATION = {
    "share": "validation", "most": "validation-images", "n": "validation-n", "alpha": "validation-alpha",
    "stopping": "validation-stopping", "tolerance": "validation-tolerance",
}  # fmt: skip


class TuneArguments:
    """What the user asked for, checked as far as it goes without data and cluster.

    Attributes:
        options: the job's own options.
        recipe, space, objectives (all that trials log; the first ``count`` were asked for), validation, rungs.
    """

    def __init__(self, recipe: Recipe, options: argparse.Namespace) -> None:
        from acr_ray.tuning.objectives import Objective, logged, parse_objectives
        from acr_ray.tuning.rungs import Rungs, place
        from acr_ray.tuning.space import Space, default_space, parse_space, trial_list

        self.options, self.recipe = options, recipe
        own = {k.removeprefix("validation:"): v for k, v in vars(options).items() if k.startswith("validation:")}
        values = {name: value for name, value in own.items() if value is not None}
        self.validation = ValidationSettings.build(values, "--validation")
        v, sigma = self.validation, recipe.training.sigma
        asked = parse_objectives(options.metric, sigma, v.n, v.alpha)
        self.objectives: tuple[Objective, ...] = logged(asked, sigma, v.n, v.alpha)
        self.count = len(asked)
        self.space: Space = parse_space(options.space, recipe) if options.space else default_space(recipe)
        self._check_workers()
        self.forks = self.space.forks(recipe) if recipe.adapts else ()
        self.rungs: Rungs = place(self.forks, self.space.epochs(recipe))
        self.trials = options.trials
        if options.search == "grid":
            self.trials = len(trial_list(self.space, recipe, "grid", options.trials, options.seed))

    def _check_workers(self) -> None:
        workers, fields = self.options.workers, self.recipe.flat()
        domains = {domain.field: domain.every() for domain in self.space.domains}
        most = max(domains.get("training.m", (fields["training.m"],)))
        least = min(domains.get("training.batch_size", (fields["training.batch_size"],))) // most
        if least < workers:
            raise UserError(
                f"--workers {workers}: a step has only {least} inputs to share at training.m = {most}; "
                f"allowed: 1 to {least}, or a smaller training.m"
            )

    def settings(self) -> dict[str, Any]:
        """How the search goes, for its identity and its summary."""
        o = self.options
        return {
            "search": o.search, "scheduler": o.scheduler, "seed": o.seed, "no_trunk": o.no_trunk,
            "baseline": o.baseline, "validation": self.validation.flat(), "workers": o.workers,
            "cpus_per_worker": o.cpus_per_worker, "gpu": bool(o.gpus_per_worker),
        }  # fmt: skip


def parse(argv: list[str], about: str) -> TuneArguments:
    """Raises UserError naming the option or field, and what is allowed."""
    named = parser(load_recipe("digits"), about).first_word(argv)
    recipe = load_recipe(named or "digits")
    if (epochs := scaled_epochs(argv)) is not None:
        recipe = recipe.scaled(epochs)
    if (method := method_in(argv)) is not None:
        recipe = recipe.change({"method.name": method}, recipe.name)
    options = parser(recipe, about).parse_args(argv)
    if named is None:
        raise UserError(f"RECIPE: missing; give a .yaml or .json file, or one of {', '.join(RECIPES)}")
    changes = given(recipe, options)
    check_addresses(recipe, changes)
    return TuneArguments(recipe.change(changes, recipe.name), options)


def parser(recipe: Recipe, about: str) -> Parser:
    found = Parser(prog="python -m jobs.tune", description=f"{about}\nOptions of the recipe {recipe.name}:")
    add = found.add_argument
    add("recipe", metavar="RECIPE", nargs="?", help="name or file")
    add("--trials", type=whole(1, 100_000), default=12, metavar="K", help="how many [>= 1; default: 12]")
    add("--metric", default="acr", metavar="M,M,…", help=f"{ALLOWED}; ASHA goes by the first [default: acr]")
    add("--search", choices=SEARCHES, default="optuna", help="optuna: TPE [default: optuna]")
    add("--scheduler", choices=SCHEDULERS, default="asha", help="asha: end poor trials early [default: asha]")
    add(
        "--space", action="append", default=[], metavar="FIELD=…",
        help="a,b,c or low..high or log:low..high of a recipe's field; may be repeated, then only these are searched "
        "[default: m, E_t, p_t, T and ε around the recipe's values]",
    )  # fmt: skip
    add(
        "--no-baseline", dest="baseline", action="store_false",
        help="leave plain Gaussian training of the recipe out; else the best trial is judged against it",
    )  # fmt: skip
    add("--no-trunk", action="store_true", help="train every trial from the beginning")
    add("--workers", type=whole(1, 100_000), default=1, metavar="N", help="DDP workers of a trial [>= 1; default: 1]")
    add("--gpus-per-worker", type=number(0), default=0, metavar="G", help="0: CPU and gloo; else NCCL [default: 0]")
    add("--cpus-per-worker", type=whole(1, 1024), default=1, metavar="C", help="cores and torch threads [default: 1]")
    add("--concurrent", type=whole(1, 100_000), metavar="C", help="trials at once [default: all that fit]")
    add("--seed", type=whole(0), default=0, metavar="S", help="of trials, validation images, search [default: 0]")
    add("--checkpoint-every", type=whole(1), default=5, metavar="K", help="epochs between checkpoints [default: 5]")
    add("--max-failures", type=whole(0), default=8, metavar="K", help="lost processes of a trial survived [default: 8]")
    for field, option in VALIDATION.items():
        info = ValidationSettings.model_fields[field]
        text = f"{info.description} [default: {info.default}]".replace("%", "%%")
        add(f"--{option}", dest=f"validation:{field}", metavar="VALUE", help=text)
    add_schedule_option(found)
    add_run_options(found)
    fields = recipe.flat()
    found.add_settings(recipe, {name: name for name in fields if name != "name"}, fields)
    return found
