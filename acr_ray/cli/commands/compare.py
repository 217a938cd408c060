"""Compare training methods over seeds.

Trains each recipe with seeds 0, 1, …, certifies each model, and writes the table of means and standard deviations
(table.md, summary.json in DIR). The same command again does only what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from acr_ray.cli.command_line import command_line
from acr_ray.cli.commands import certify, train
from acr_ray.cli.options import CLUSTER, add_run_options
from acr_ray.cli.parser import Parser, whole
from acr_ray.cli.results import CompareResult
from acr_ray.cli.session import RunOptions
from acr_ray.formats.files import SUMMARY, TABLE_MARKDOWN
from acr_ray.settings import RECIPES, Recipe, UserError, load_recipe
from acr_ray.settings.recipes import check_addresses
from acr_ray.storage import Folder, open_run
from acr_ray.training.control.channel import ControlChannel
from acr_ray.training.workers import CheckpointPolicy, Workers

METHODS = sorted((name for name in RECIPES if name.startswith("digits")), key=lambda name: name != "digits-gaussian")
RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
COLUMNS = {"ACR": 4, **{f"r = {r:g} (%)": 1 for r in RADII}, "hard (%)": 1, "passes / 10^6": 2}  # digits shown
SCHEMA_VERSION = 1


def run(
    options: RunOptions,
    *,
    methods: Sequence[str] = tuple(METHODS),
    seeds: int = 3,
    n: int = 10_000,
    workers: int = 1,
) -> CompareResult:
    """Train and certify each recipe with each seed, if that is not done, and print the table.

    Args:
        options: where results go; each training and certification is tracked alike.
        methods: names or files of recipes.
        seeds: trainings of each recipe; >= 1.
        n: noise draws an image.
        workers: DDP workers, and sampler actors.

    Raises:
        UserError: no or an unknown recipe, or what training and certification raise.
        CommandFailed: a training or certification broke off; the same call resumes.
    """
    out = options.folder()
    if not methods:
        raise UserError("--methods: none given; allowed: names or files of recipes, with commas between")
    recipes = {name: load_recipe(name) for name in methods}
    for recipe in recipes.values():
        check_addresses(recipe, ())
    owned = (TABLE_MARKDOWN, SUMMARY)
    open_run(out, "compare", {"workers": workers}, overwrite=options.overwrite, owned=owned)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in recipes}
    # Seed by seed, so that a comparison that is cut short has every method.
    for seed in range(seeds):
        for name, recipe in recipes.items():
            rows[name].append(_one_run(out, name, recipe, seed, n, workers, options))
    methods_summary = {name: _spread(runs) for name, runs in rows.items()}
    table = _table(methods_summary, seeds)
    settings = {"n": n, "seeds": seeds, "workers": workers}
    summary = {"schema_version": SCHEMA_VERSION, "settings": settings, "methods": methods_summary}
    out.write_json(SUMMARY, summary)
    out.write_text(TABLE_MARKDOWN, table)
    print(f"\n{table}\n{out}/table.md")
    return CompareResult(out, summary, table)


def main(argv: list[str]) -> None:
    """Read the command line, and compare."""
    options = parser().parse_args(argv)
    methods = [name.strip() for name in options.methods.split(",") if name.strip()]
    run(RunOptions.of(options), methods=methods, seeds=options.seeds, n=options.n, workers=options.workers)


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s --out DIR [--methods R,R,…] [--seeds K] [--n N] [OPTIONS]"
    parser = Parser(prog=command_line("compare"), usage=usage, description=__doc__)
    add = parser.add_argument_group("what to compare").add_argument
    add(
        "--methods", metavar="R,R,…", default=",".join(METHODS), help="recipes, names or files [default: all on digits]"
    )
    add("--seeds", type=whole(1, 1000), default=3, metavar="K", help="runs of each [default: 3]")
    add("--n", type=whole(10, 10**9), default=10_000, metavar="N", help="noise draws an image [default: 10000]")
    parser.add_argument_group(CLUSTER).add_argument(
        "--workers", type=whole(1), default=1, metavar="W", help="DDP workers, and actors [default: 1]"
    )
    add_run_options(parser)
    return parser


def _one_run(
    out: Folder, name: str, recipe: Recipe, seed: int, n: int, workers: int, options: RunOptions
) -> dict[str, float]:
    """Train and certify a recipe with a seed. Returns its row by `COLUMNS`."""
    # A recipe from a file is known by what it says: another file name, or a file that was edited.
    folder = f"{name if name in RECIPES else f'own-{recipe.sha256[:12]}'}-{seed}"
    trained = train.run(
        recipe,
        _options_in(out / f"train/{folder}", options),
        workers=Workers(workers),
        seed=seed,
        policy=CheckpointPolicy(every=10),
    )
    certified = certify.run(
        str(trained.folder),
        _options_in(out / f"certify-{n}/{folder}", options),
        settings={"n": n, "radii": RADII, "seed": seed, "root": recipe.data.root},
        actors=(workers, workers),
    )
    summary, epochs = certified.summary, ControlChannel(trained.folder).records()
    passes = sum(epoch["forward_passes"] + epoch["backward_passes"] for epoch in epochs)
    shares = [100 * share for share in (*summary["certified_accuracy"].values(), summary["hard_share"])]
    return dict(zip(COLUMNS, [summary["acr"], *shares, passes / 1e6], strict=True))


def _options_in(folder: Folder, options: RunOptions) -> RunOptions:
    """The options of one run of the comparison, whose MLflow run has a name of its own."""
    return replace(options, out=str(folder), run_name=None)


def _spread(runs: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (n - 1; none of one run) and values of each column over the seeds."""
    columns = {column: [run[column] for run in runs] for column in COLUMNS}
    return {
        column: {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None, "runs": values}
        for column, values in columns.items()
    }


def _table(summary: dict[str, Any], seeds: int) -> str:
    """Markdown, one row a recipe: mean ± standard deviation over the seeds."""
    lines = [f"| recipe ({seeds} seeds) | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, columns in summary.items():
        shown = {column: (columns[column]["mean"], columns[column]["sd"], digits) for column, digits in COLUMNS.items()}
        cells = [f"{mean:.{d}f}" + ("" if sd is None else f" ± {sd:.{d}f}") for mean, sd, d in shown.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
