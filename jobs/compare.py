"""Compare training methods over seeds: python -m jobs.compare --out DIR [--methods R,R,…] [--seeds 3] [--n 10000]

Trains each recipe with seeds 0, 1, …, certifies each model, and writes the table of means and standard deviations
(table.md, summary.json). The same command again does only what is left.
"""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from acr_ray.settings import RECIPES, UserError, load_recipe
from acr_ray.storage import Folder, claim
from acr_ray.storage.summaries import read_summary
from acr_ray.training.control.channel import ControlChannel
from jobs import certify, train
from jobs._main import Parser, entry, whole
from jobs._run import add_run_options, out_folder

METHODS = sorted((name for name in RECIPES if name.startswith("digits")), key=lambda name: name != "digits-gaussian")
RADII = ("0", "0.25", "0.5", "0.75", "1")
COLUMNS = {"ACR": 4, **{f"r = {r} (%)": 1 for r in RADII}, "hard (%)": 1, "passes / 10^6": 2}  # digits shown
SCHEMA_VERSION = 1


def parser() -> Parser:
    found = Parser(prog="python -m jobs.compare", description=__doc__)
    found.add_argument(
        "--methods", metavar="R,R,…", default=",".join(METHODS), help="recipes, names or files [default: all on digits]"
    )
    found.add_argument("--seeds", type=whole(1, 1000), default=3, metavar="K", help="runs of each [default: 3]")
    found.add_argument(
        "--n", type=whole(10, 10**9), default=10_000, metavar="N", help="draws an image [default: 10000]"
    )
    found.add_argument("--workers", type=whole(1), default=1, metavar="W", help="DDP workers, and actors [default: 1]")
    add_run_options(found)
    return found


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    out = out_folder(options)
    recipes = [name.strip() for name in options.methods.split(",") if name.strip()]
    if not recipes:
        raise UserError("--methods: none given; allowed: names or files of recipes, with commas between")
    shared = ["--no-tracking"] if options.no_tracking else []
    shared += ["--tracking-uri", options.tracking_uri] if options.tracking_uri else []
    shared += ["--experiment", options.experiment] if options.experiment else []
    shared += ["--overwrite"] if options.overwrite else []
    owned = ("table.md", "summary.json")
    for name in recipes:
        load_recipe(name)
    claim(out, "compare", {"workers": options.workers}, overwrite=options.overwrite, owned=owned)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in recipes}
    # Seed by seed, so that a comparison that is cut short has every method.
    for seed in range(options.seeds):
        for name in recipes:
            rows[name].append(_one_run(out, name, seed, options, shared))
    summary = {name: _spread(runs) for name, runs in rows.items()}
    table = _table(summary, options.seeds)
    settings = {"n": options.n, "seeds": options.seeds, "workers": options.workers}
    out.write_json("summary.json", {"schema_version": SCHEMA_VERSION, "settings": settings, "methods": summary})
    out.write_text("table.md", table)
    print(f"\n{table}\n{out}/table.md")


def _one_run(out: Folder, recipe: str, seed: int, options: Any, shared: list[str]) -> dict[str, float]:
    # A recipe from a file is known by what it says: another file name, or a file that was edited.
    name = recipe if recipe in RECIPES else f"own-{load_recipe(recipe).sha256[:12]}"
    trained, certified = out / f"train/{name}-{seed}", out / f"certify-{options.n}/{name}-{seed}"
    workers = ["--workers", str(options.workers)]
    train.main([recipe, "--out", str(trained), "--seed", str(seed), "--checkpoint-every", "10", *workers, *shared])
    draws = ["--n", str(options.n), "--radii", ",".join(RADII), "--actors", str(options.workers)]
    root = load_recipe(recipe).data.root
    data = [] if root is None else ["--data.root", root]
    certify.main([str(trained), "--out", str(certified), "--seed", str(seed), *draws, *data, *shared])
    summary, epochs = read_summary(certified, "certify"), ControlChannel(trained).records()
    passes = sum(epoch["forward_passes"] + epoch["backward_passes"] for epoch in epochs)
    shares = [100 * share for share in (*summary["certified_accuracy"].values(), summary["hard_share"])]
    return dict(zip(COLUMNS, [summary["acr"], *shares, passes / 1e6], strict=True))


def _spread(runs: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (n - 1; none of one run) and values of each column over the seeds."""
    found = {column: [run[column] for run in runs] for column in COLUMNS}
    return {
        column: {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None, "runs": values}
        for column, values in found.items()
    }


def _table(summary: dict[str, Any], seeds: int) -> str:
    """Markdown, one row a recipe: mean ± standard deviation over the seeds."""
    lines = [f"| recipe ({seeds} seeds) | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, columns in summary.items():
        shown = {column: (columns[column]["mean"], columns[column]["sd"], digits) for column, digits in COLUMNS.items()}
        cells = [f"{mean:.{d}f}" + ("" if sd is None else f" ± {sd:.{d}f}") for mean, sd, d in shown.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    entry(main)
