"""What a search costs: rows through the network, planned from its list of trials and counted in the workers.

Counts, not seconds: they don't depend on the machine or on what else runs there, so one run of each is all it takes.
Trials go one at a time where the order of their results decides anything (ASHA).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from acr_ray.data import batches, open_images
from acr_ray.formats.files import TRIALS
from acr_ray.formats.states import TrialStatus
from acr_ray.models import load_checkpoint
from acr_ray.settings import Recipe, load_recipe
from acr_ray.smoothing.bounds import lower_bound, radius
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.storage import Folder, own
from acr_ray.training.estimate import ROWS
from acr_ray.training.group import Group
from acr_ray.training.workers import Workers
from acr_ray.tuning.leases import Leases
from acr_ray.tuning.objectives import logged, parse_objectives
from acr_ray.tuning.pass_counts import Record, search_passes, validation_passes
from acr_ray.tuning.results import ACR, best_of, costs
from acr_ray.tuning.rungs import place
from acr_ray.tuning.space import Space, parse_space
from acr_ray.tuning.trial_run import SearchContext, TrialRun
from acr_ray.tuning.validation import ValidationSettings, held_out
from jobs.benchmarks.figures import figure

FULL = ("training.m=2,4", "training.e_t=20,30,40", "discard.p_t=0.4,0.5", "attack.steps=1,3")
QUICK = ("training.e_t=3,4", "discard.p_t=0.4,0.5")
SHORT = {"training.epochs": 6, "training.milestones": (3, 5), "training.e_t": 3}  # of the quick space
QUICK_VALIDATION = {"n": 500}
N, ALPHA, SEEDS = 10_000, 0.001, 3  # of the best trials' certification anew

Reports = list[dict[str, Any]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="keep the searches there, and go on [default: a temporary folder]")


def needs_cluster(options: argparse.Namespace) -> bool:
    """Whether trials run on Ray Tune: all but the quick ones, which take their turns in this process."""
    return not options.quick


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, return the JSON object's own fields."""
    if options.out:
        own(Folder(options.out), "bench", ("scratch", "trunks", "search"))
        return _measure(Path(options.out).absolute(), options.quick)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder), options.quick)


def works(out: Path, quick: bool) -> tuple[dict[str, SearchContext], Space]:
    """The three searches over the same trials, and their space.

    ``scratch``: every trial from the beginning, FIFO, N draws for every validation image. ``trunks``: the same
    trials with trunks. ``search``: trunks, ASHA, and validation that draws what the rank needs.
    """
    recipe = load_recipe("digits").change(SHORT if quick else {})
    space = parse_space(QUICK if quick else FULL, recipe)
    draws = QUICK_VALIDATION if quick else {}
    fixed, rungs = ValidationSettings(stopping="fixed", **draws), place(space.forks(recipe), space.epochs(recipe))
    asked = parse_objectives("acr", recipe.training.sigma, fixed.n, fixed.alpha)
    scratch = SearchContext(
        recipe=recipe,
        seed=0,
        out=str(out / "scratch"),
        validation=fixed,
        workers=Workers(),
        trunks=False,
        objectives=logged(asked, recipe.training.sigma, fixed.n, fixed.alpha),
        count=1,
        forks=space.forks(recipe),
        rungs=(),
        checkpoint_every=20,
        fingerprint=open_images("digits", None, "train").fingerprint(),
    )
    # Of the second the training alone is compared with the first's, so its validation may be the cheap one.
    trunks = replace(scratch, out=str(out / "trunks"), trunks=True, validation=ValidationSettings(**draws))
    search = replace(trunks, out=str(out / "search"), rungs=rungs.epochs)
    return {"scratch": scratch, "trunks": trunks, "search": search}, space


def _measure(out: Path, quick: bool) -> dict[str, Any]:
    torch.set_num_threads(1)
    found, space = works(out, quick)
    reports = {name: _run(context, space, quick) for name, context in found.items()}
    counted = {name: costs(Folder(context.out), reports[name]) for name, context in found.items()}
    planned = {name: plan(context, reports[name]) for name, context in found.items()}
    beforehand = {
        name: plan(context, [{"point": r["point"]} for r in reports[name]]) for name, context in found.items()
    }
    training = {name: cost["trials"] + cost["trunks"] for name, cost in counted.items()}
    ratios = {
        "passes_ratio": training["trunks"] / training["scratch"],
        "search_ratio": counted["search"]["total"] / counted["scratch"]["total"],
    }
    print(f"{'':10} {'training':>14} {'planned':>14} {'at most':>14} {'validation':>14} {'all':>14}  rows")
    for name in found:
        row = (training[name], planned[name], beforehand[name], counted[name]["validation"], counted[name]["total"])
        print(f"{name:10} " + " ".join(f"{value:14,}" for value in row))
    for name, value in ratios.items():
        print(f"{name} {value:.3f}")
    given = {name: figure([value]) for name, value in ratios.items()}
    given |= {"passes_ratio_at_most": figure([beforehand["trunks"] / beforehand["scratch"]])}
    given |= {"planned": planned, "planned_at_most": beforehand, "counted": counted}
    given |= {"planned_equals_counted": planned == training, "trials": len(reports["scratch"])}
    return given if quick else given | _certify_anew(found, reports)


def _run(context: SearchContext, space: Space, quick: bool) -> Reports:
    # Imported here: planning needs no Ray.
    from acr_ray.tuning.search import Search, run_here, run_search

    rungs = place(context.forks, context.recipe.training.epochs)
    concurrent = 1 if context.rungs else None
    search = Search(space, "grid", "asha" if context.rungs else "fifo", 1000, rungs, concurrent)
    Folder(context.out).make_writable()
    if quick:
        return run_here(context, search)
    return run_search(context, search, _line(context))


def _line(context: SearchContext) -> Callable[[Any, dict[str, Any]], None]:
    name, ended = Path(context.out).name, set()

    def event(point: Any, report: dict[str, Any]) -> None:
        if report["status"] != TrialStatus.RUNNING and report["trial"] not in ended:
            ended.add(report["trial"])
            values = " ".join(f"{field}={value}" for field, value in point.items())
            print(f"{name} {len(ended)}: {values}: {report['status']} acr {report['acr']:.4f}", flush=True)

    return event


def plan(context: SearchContext, reports: Reports) -> int:
    """Training passes of these trials, planned; a report of a point alone is planned as the most it can cost."""
    recipes = [_recipe(context, report) for report in reports]
    known = all("remaining" in report for report in reports)
    records = [Record(r["remaining"], r["attack_active"]) for r in reports] if known else None
    epochs = [r["epoch"] for r in reports] if known else None
    images = len(context.images()[0])
    return search_passes(recipes, images, context.trunks, records, epochs).total


def plan_validation(context: SearchContext) -> int:
    """The most that one validation can pass."""
    images = len(held_out(open_images("digits", None, "train"), context.validation, context.seed)[1])
    return validation_passes(images, context.validation.n, context.validation.looks, ROWS)


def _recipe(context: SearchContext, report: dict[str, Any]) -> Recipe:
    return context.recipe.change(report["point"], context.recipe.name)


def _certify_anew(found: dict[str, SearchContext], reports: dict[str, Reports]) -> dict[str, Any]:
    """ACR on the test images at N of the best trials, and of the from-scratch search's best over seeds."""
    best = {name: best_of(reports[name], ACR) for name in ("scratch", "search")}
    acr = {name: _acr(Path(found[name].out) / TRIALS / best[name]["trial"]) for name in best}
    over = [acr["scratch"]] + [_again(found["scratch"], best["scratch"], seed) for seed in range(1, SEEDS)]
    mean, spread = fmean(over), stdev(over)
    within = acr["search"] >= min(*over, mean - spread)
    print(
        f"best of scratch: {best['scratch']['point']} ACR {acr['scratch']:.4f}; over seeds {mean:.4f} ± {spread:.4f}\n"
        f"best of search:  {best['search']['point']} ACR {acr['search']:.4f} (N = {N:,}, test images)"
    )
    found_points = {name: {"point": report["point"], "acr": acr[name]} for name, report in best.items()}
    return {"best": found_points, "acr_over_seeds": figure(over) | {"sd": spread}, "best_within_spread": within}


def _again(context: SearchContext, report: dict[str, Any], seed: int) -> float:
    """The ACR of the same trial with another seed."""
    other = replace(context, seed=seed, out=f"{context.out}-seed-{seed}")
    trial = TrialRun(other, report["point"], other.images(), Group())
    done = trial.finished()
    if done is None:
        trial.begin(Leases())
        while trial.advance()["status"] == TrialStatus.RUNNING:
            pass
    return _acr(Path(other.out) / TRIALS / trial.trial_id)


def _acr(folder: Path) -> float:
    """ACR of a trial's model on the test images, each certified for its label with N draws."""
    model, card = load_checkpoint(str(folder))
    images = open_images("digits", None, "test")
    engine, phase = SamplingEngine(model, card.num_classes, card.sigma), Phase("bench", N, ROWS)
    right = [
        int(engine.count_label(x, y, [name], 0, phase)[0])
        for name, (x, y) in zip(images.names, batches(images, [([i], None) for i in range(len(images))]), strict=True)
    ]
    return float(radius(lower_bound(right, N, ALPHA), card.sigma).mean())
