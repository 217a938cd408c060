"""A search: from checked arguments to its trials, best recipe, page and MLflow runs."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from acr_ray import __version__
from acr_ray.cli.command_line import command_line
from acr_ray.cli.drivers.recipe_inputs import check_recipe, open_data
from acr_ray.cli.drivers.trial_progress import TrialLines
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.progress import Waiting
from acr_ray.cli.ray_session import check_workers_fit
from acr_ray.cli.results import TuneResult
from acr_ray.cli.session import RunOptions, open_tracked_run
from acr_ray.cli.tune_arguments import TuneArguments
from acr_ray.formats.files import BEST_RECIPE, PAGE, RUN, SUMMARY, TRIALS_TABLE
from acr_ray.formats.states import TrialStatus
from acr_ray.settings import Recipe, UserError
from acr_ray.storage import Folder
from acr_ray.storage.summaries import read_summary
from acr_ray.telemetry.watching import TrialMeters
from acr_ray.tuning.results import best_file, best_of, best_recipe, summary_of, write_best, write_table
from acr_ray.tuning.space import Point
from acr_ray.tuning.trial_run import SearchContext
from acr_ray.tuning.validation import held_out


def tune(arguments: TuneArguments, options: RunOptions) -> TuneResult:
    """Search, or resume the search that the results folder holds; see `acr_ray.cli.commands.tune.run`."""
    recipe = arguments.recipe.with_absolute_paths()
    recipe.check_complete()
    out = options.folder()
    images = open_data(recipe.data.dataset, recipe.data.root, "train", recipe.data.class_map, recipe.data.options)
    training, validation = held_out(images, arguments.validation, arguments.seed)
    contents = check_recipe(recipe, images, arguments.domains.recipes_naming(recipe))
    # Imported here: what lies above is checked before Ray is loaded, so mistakes are answered at once.
    from acr_ray.preflight.nodes import problem_of_a_node
    from acr_ray.tracking.runs import with_run
    from acr_ray.tracking.searches import TRACKED, SearchLog
    from acr_ray.tuning.page import PICTURE, write_page
    from acr_ray.tuning.search import OWNED, Search, run_baseline, run_search
    from acr_ray.tuning.verdict import verdict

    context = _context(arguments, recipe, out, images.fingerprint(), contents)
    search = Search(
        arguments.domains,
        arguments.search,
        arguments.scheduler,
        arguments.trial_count,
        arguments.rungs,
        arguments.concurrent,
        arguments.max_failures,
    )
    settings = arguments.settings()
    identity = {**recipe.identity(contents), "space": arguments.domains.text(), **settings}
    identity |= {"metric": [o.name for o in context.asked], "trials": search.trials, "data": context.fingerprint}
    if arguments.best:
        identity["best"] = [o.name for o in arguments.best]
    # Trunks stay, also with --overwrite: their names say all that they depend on, and they serve later searches.
    results = (TRIALS_TABLE, BEST_RECIPE, PAGE, PICTURE, SUMMARY, *map(best_file, arguments.best))
    owned, name = (*OWNED, TRACKED, *results), f"search-{recipe.name}"
    check_room = partial(check_workers_fit, context.workers, recipe, len(training), options.verbose)
    opened = open_tracked_run(options, out, "tune", identity, owned, name, check_room=check_room)
    if opened is None:
        print(f"done before: {out}/{BEST_RECIPE}")
        return TuneResult(out, read_summary(out, "tune"), done_before=True)
    tracker = opened.tracker
    # Every option, defaults too; what decides the result under the names that it has in the run's identity.
    params: dict[str, Any] = {"recipe": recipe.name, **recipe.flat(), **identity, "data.root": recipe.data.root}
    params |= {name: getattr(arguments, name) for name in ("concurrent", "checkpoint_every", "max_failures")}
    tracker.params(params | {"code_version": __version__})
    tracker.dataset(f"{images.dataset}-train", context.fingerprint, str(recipe.data.root), "tuning")
    waiting = Waiting()
    log = SearchLog(tracker, out, [o.name for o in context.objectives])

    def work() -> None:
        if opened.computed:
            return
        print(
            f"tune {recipe.name}: {search.trials} trials, {len(training)} images to train on, {len(validation)} to "
            f"measure, results in {out}",
            flush=True,
        )
        lines, started = TrialLines(context, search.trials, waiting), time.monotonic()
        meters = TrialMeters(f"{recipe.name}:{out.uri.rsplit('/', 1)[-1]}", search.trials)

        def on_report(point: Point, report: dict[str, Any]) -> None:
            lines(point, report)
            log(point, report)
            meters(point, report)

        # Before Tune knows of any trial: it would try each of them again and again.
        if problem := problem_of_a_node(out, RUN, context.workers.cpus, context.workers.gpus):
            raise UserError(problem)
        shared = "; what they share before E_t is trained first" if arguments.trunks else ""
        waiting.begin(f"training the first trials up to epoch {arguments.checkpoint_every}{shared}")
        reports = run_search(context, search, on_report)
        waiting.end()
        baseline = None
        if arguments.baseline and context.baseline is not None:
            waiting.begin("training the Gaussian baseline")
            baseline = run_baseline(context, search)
            waiting.end()
        best = best_of(reports, context.asked[0])
        write_table(out, context, arguments.domains, reports)
        if best is None:
            raise CommandFailed(
                f"no trial was trained to its end ({_reasons(reports)}); {out}/{TRIALS_TABLE} lists them"
            )
        out.write_json(BEST_RECIPE, best_recipe(context, best).model_dump(mode="json"))
        summary = summary_of(out, context, arguments.domains, reports, settings, baseline)
        if arguments.best:
            summary["best_per_radius"] = write_best(out, context, arguments.best, reports)
        summary |= {"validation_images": len(validation), "seconds": round(time.monotonic() - started, 3)}
        write_page(out, context, reports, summary, baseline)
        print(f"\n{verdict(out, reports, baseline)}\n", flush=True)
        if lost := [r for r in [*reports, *([baseline] if baseline else [])] if r["status"] == TrialStatus.LOST]:
            raise CommandFailed(
                f"{len(lost)} of {len(reports)} trials were lost ({_reasons(lost)}); {out}/{BEST_RECIPE} is the best "
                f"of the others, {out}/{TRIALS_TABLE} lists all; the same command tries the lost ones again"
            )
        out.write_json(SUMMARY, summary | {"code_version": __version__, "mlflow_run_id": tracker.run_id})

    with waiting:
        with_run(tracker, work)
    log.finish()
    tracker.files(out, list(results))
    opened.close()
    train = f"{command_line('train')} {out}/{BEST_RECIPE} --out DIR"
    each = "".join(f"\nbest at radius {o.at:g}: {out}/{best_file(o)}" for o in arguments.best)
    print(f"best: {out}/{BEST_RECIPE} ({train}){each}\nreport: {out}/{PAGE}", flush=True)
    return TuneResult(out, read_summary(out, "tune"), done_before=opened.computed)


def _context(
    arguments: TuneArguments, recipe: Recipe, out: Folder, fingerprint: str, contents: dict[str, Any]
) -> SearchContext:
    """What all trials of the search share."""
    return SearchContext(
        recipe=recipe,
        seed=arguments.seed,
        out=out.uri,
        validation=arguments.validation,
        objectives=arguments.objectives,
        count=len(arguments.asked),
        workers=arguments.workers,
        trunks=arguments.trunks,
        forks=arguments.forks,
        fingerprint=fingerprint,
        rungs=arguments.rungs.epochs if arguments.scheduler == "asha" else (),
        checkpoint_every=arguments.checkpoint_every,
        contents=contents,
    )


def _reasons(reports: list) -> str:
    text = "; ".join(dict.fromkeys(r.get("reason") or r["status"] for r in reports))
    return text if len(text) <= 300 else f"{text[:299]}…"
