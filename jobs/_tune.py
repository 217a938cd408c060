"""jobs.tune at work."""

from __future__ import annotations

import time
from functools import partial

from acr_ray import __version__
from acr_ray.formats.files import BEST_RECIPE, PAGE, SUMMARY, TRIALS_TABLE
from acr_ray.formats.states import TrialStatus
from acr_ray.settings import UserError
from acr_ray.telemetry.watching import TrialMeters
from acr_ray.training.workers import Workers
from acr_ray.tuning.results import best_of, best_recipe, summary_of, write_table
from acr_ray.tuning.trial_run import SearchContext
from acr_ray.tuning.validation import held_out
from jobs._checks import check_recipe
from jobs._data import open_data
from jobs._main import JobFailed
from jobs._progress import Waiting
from jobs._ready import workers_fit
from jobs._run import begin, out_folder
from jobs._trial_lines import TrialLines
from jobs._tune_options import TuneArguments


def run(asked: TuneArguments) -> None:
    options, recipe = asked.options, asked.recipe.with_absolute_paths()
    recipe.check_complete()
    out = out_folder(options)
    images = open_data(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map)
    training, validation = held_out(images, asked.validation, options.seed)
    contents = check_recipe(recipe, images, asked.space.recipes_naming(recipe))
    # Imported here: what lies above is checked before Ray is loaded, so mistakes are answered at once.
    from acr_ray.preflight.nodes import problem_of_a_node
    from acr_ray.tracking.runs import with_run
    from acr_ray.tracking.searches import TRACKED, SearchLog
    from acr_ray.tuning.page import PICTURE, write_page
    from acr_ray.tuning.search import OWNED, Search, run_baseline, run_search
    from acr_ray.tuning.verdict import verdict

    work = SearchContext(
        recipe=recipe, seed=options.seed, out=out.uri, validation=asked.validation, objectives=asked.objectives,
        count=asked.count, workers=Workers(options.workers, options.gpus_per_worker, options.cpus_per_worker),
        trunks=not options.no_trunk, forks=asked.forks, fingerprint=images.fingerprint(),
        rungs=asked.rungs.epochs if options.scheduler == "asha" else (), checkpoint_every=options.checkpoint_every,
        contents=contents,
    )  # fmt: skip
    search = Search(
        asked.space, options.search, options.scheduler, asked.trials, asked.rungs, options.concurrent,
        options.max_failures,
    )  # fmt: skip
    settings = asked.settings()
    identity = {**recipe.identity(contents), "space": asked.space.text(), **settings}
    identity |= {"metric": [o.name for o in work.asked], "trials": asked.trials, "data": work.fingerprint}
    # Trunks stay, also with --overwrite: their names say all that they depend on, and they serve later searches.
    results = (TRIALS_TABLE, BEST_RECIPE, PAGE, PICTURE, SUMMARY)
    owned, name = (*OWNED, TRACKED, *results), f"search-{recipe.name}"
    ready = partial(workers_fit, work.workers, recipe, len(training), options.verbose)
    begun = begin(options, out, "tune", identity, owned, name, ready=ready)
    if begun is None:
        print(f"done before: {out}/{BEST_RECIPE}")
        return
    tracker = begun.tracker
    tracker.params({"recipe": recipe.name, **identity, "code_version": __version__})
    tracker.dataset(f"{images.dataset}-train", work.fingerprint, str(recipe.data.root), "tuning")
    waiting = Waiting()
    log = SearchLog(tracker, out, [o.name for o in work.objectives])

    def run() -> None:
        if begun.done:
            return
        print(
            f"tune {recipe.name}: {asked.trials} trials, {len(training)} images to train on, {len(validation)} to "
            f"measure, results in {out}", flush=True,
        )  # fmt: skip
        lines, started = TrialLines(work, asked.trials, waiting), time.monotonic()
        meters = TrialMeters(f"{recipe.name}:{out.uri.rsplit('/', 1)[-1]}", asked.trials)
        # Before Tune knows of any trial: it would try each of them again and again.
        if problem := problem_of_a_node(out, "run.json", options.cpus_per_worker, options.gpus_per_worker):
            raise UserError(problem)
        shared = "" if options.no_trunk else "; what they share before E_t is trained first"
        waiting.begin(f"training the first trials up to epoch {options.checkpoint_every}{shared}")
        reports = run_search(
            work, search, lambda point, report: (lines(point, report), log(point, report), meters(point, report))
        )
        waiting.end()
        baseline = None
        if options.baseline and work.baseline is not None:
            waiting.begin("training the Gaussian baseline")
            baseline = run_baseline(work, search)
            waiting.end()
        best = best_of(reports, work.asked[0])
        write_table(out, work, asked.space, reports)
        if best is None:
            raise JobFailed(f"no trial was trained to its end ({_reasons(reports)}); {out}/{TRIALS_TABLE} lists them")
        out.write_json(BEST_RECIPE, best_recipe(work, best).model_dump(mode="json"))
        summary = summary_of(out, work, asked.space, reports, settings, baseline)
        summary |= {"validation_images": len(validation), "seconds": round(time.monotonic() - started, 3)}
        write_page(out, work, reports, summary, baseline)
        print(f"\n{verdict(out, reports, baseline)}\n", flush=True)
        if lost := [r for r in [*reports, *([baseline] if baseline else [])] if r["status"] == TrialStatus.LOST]:
            raise JobFailed(
                f"{len(lost)} of {len(reports)} trials were lost ({_reasons(lost)}); {out}/{BEST_RECIPE} is the best "
                f"of the others, {out}/{TRIALS_TABLE} lists all; the same command tries the lost ones again"
            )
        out.write_json(SUMMARY, summary | {"code_version": __version__, "mlflow_run_id": tracker.run_id})

    with waiting:
        with_run(tracker, run)
    log.finish()
    tracker.files(out, list(results))
    begun.end()
    best = f"{out}/{BEST_RECIPE}"
    print(f"best: {best} (python -m jobs.train {best} --out DIR)\nreport: {out}/{PAGE}", flush=True)


def _reasons(reports: list) -> str:
    text = "; ".join(dict.fromkeys(r.get("reason") or r["status"] for r in reports))
    return text if len(text) <= 300 else f"{text[:299]}…"
