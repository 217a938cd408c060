"""The search as its driver sees it: Ray Tune's tuner over trials, begun or resumed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from acr_ray.formats.files import SEARCH_BEGUN, TRIALS, TUNE, TUNE_BASELINE, TUNE_TRAIN
from acr_ray.formats.states import TrialStatus
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.workers import Workers
from acr_ray.tuning.leases import Leases
from acr_ray.tuning.rungs import REDUCTION, Rungs
from acr_ray.tuning.space import Point, Space, trial_list
from acr_ray.tuning.suggesting import optuna_search
from acr_ray.tuning.trial import POINT, OneWorkerTrial, RemoteClaims, group_trial, point_of
from acr_ray.tuning.trial_run import SINCE_FORKS, SearchContext, TrialRun
from acr_ray.tuning.watcher import OnReport, Watcher, watching

SEARCHES, SCHEDULERS = ("optuna", "random", "grid"), ("asha", "fifo")
OWNED = (TUNE, TUNE_BASELINE, TUNE_TRAIN, TRIALS, SEARCH_BEGUN)


@dataclass(frozen=True)
class Search:
    """How a search goes about it.

    Attributes:
        space: what is searched.
        search: one of `SEARCHES`.
        scheduler: one of `SCHEDULERS`.
        trials: how many; a grid has no more than its points.
        rungs: where ASHA looks.
        concurrent: most trials at once; None: as many as fit the cluster.
        max_failures: times that a trial's process or node may be lost.
    """

    space: Space
    search: str
    scheduler: str
    trials: int
    rungs: Rungs
    concurrent: int | None = None
    max_failures: int = 8


def at_once(workers: Workers, resources: Mapping[str, float], asked: int | None) -> int:
    """Return how many trials a cluster holds at once, at least one.

    Trials of several workers take their CPUs through Ray Train, where Tune does not see them: without a limit all of
    them would wait for the rest of their workers.
    """
    fits = [resources.get("CPU", 0) // (workers.count * workers.cpus)]
    if workers.gpus:
        fits.append(int(resources.get("GPU", 0) / (workers.count * workers.gpus) + 1e-9))
    return max(1, int(min(fits)) if asked is None else min(int(min(fits)), asked))


def run_search(
    context: SearchContext, search: Search, on_report: OnReport = lambda point, report: None
) -> list[dict[str, Any]]:
    """Run all trials, or those that are left, and return the last report of each in the order of their creation.

    A report also has its ``point``; its status is ``stopped`` if the scheduler ended a trial early, and ``lost``
    if its processes were lost too often. The same search in the same folder resumes: trials that Tune has down as
    finished are not run, one that was finished after Tune last wrote is found by its own report.

    Args:
        on_report: called with every report, in the driver.

    Raises:
        UserError: the cluster can never hold a trial.
    """
    return _run(context, search, TUNE, None, on_report)


def run_baseline(
    context: SearchContext, search: Search, on_report: OnReport = lambda point, report: None
) -> dict[str, Any] | None:
    """Run plain Gaussian training as one more trial, after the others: it forks from their trunk.

    Returns:
        Its last report; None if the recipe is plain Gaussian training itself.
    """
    if context.baseline is None:
        return None
    alone = replace(search, search="grid", scheduler="fifo", trials=1)
    return _run(context, alone, TUNE_BASELINE, [context.baseline], on_report)[0]


def _run(
    context: SearchContext, search: Search, name: str, points: list[Point] | None, on_report: OnReport
) -> list[dict[str, Any]]:
    """Ray Tune over these points, or those of the search, in a folder of its own."""
    context.workers.check_fits()
    _begin(Folder(context.out))
    _quieten()
    trainable = _trainable(context)
    tuner = _restored(Folder(context.out) / name, trainable)
    if tuner is None:
        Folder(context.out).delete(name)
        tuner = _tuner(context, search, trainable, name, points)
    with watching(on_report) as watched:
        results = tuner.fit()
    # A search that went on has its trials in another order; their names count them as they were made.
    ordered = sorted((results[i] for i in range(len(results))), key=lambda result: creation_number(result.path))
    return [_record(context, search, result, watched.lost) for result in ordered]


def _begin(out: Folder) -> None:
    """Leave a file that trials look for. Ray's own files name their place: in a folder that was moved they are of no
    use, and the search begins again with the trunks and the finished trials, which lie in files of our own."""
    before = out.read_text(SEARCH_BEGUN) if out.is_file(SEARCH_BEGUN) else ""
    if before not in ("", out.uri):
        for name in (TUNE, TUNE_BASELINE, TUNE_TRAIN):
            out.delete(name)
    out.write_text(SEARCH_BEGUN, out.uri)


def creation_number(path: str) -> int:
    """Return which trial of the search a folder of Tune's belongs to: 3 of ``…/trial_4b9de_00003``.

    A folder that was there when the driver was killed is not used again: its trial's next has a few more letters,
    ``trial_4b9de_00003_5578``. Optuna's trials have no numbers (``trial_7e1f7a34``); all are 0, which leaves them in
    Tune's own order.
    """
    match = re.fullmatch(r"trial_[^_]+_(\d+)(_.*)?", path.rstrip("/").rpartition("/")[2])
    return int(match[1]) if match else 0


def _restored(folder: Folder, trainable: Any) -> tune.Tuner | None:
    """Return Tune's search in this folder, to be resumed; None if there is none.

    Tune writes its tuner first and what trials did later, and not in one piece: killed in between it has nothing to
    resume from. Then the search begins again, and finds the trunks and the reports of the trials that it finished.
    """
    if not tune.Tuner.can_restore(folder.uri):
        return None
    if not any(name.startswith("experiment_state") for name in folder.names(".json")):
        return None
    try:
        return tune.Tuner.restore(folder.uri, trainable, resume_errored=True)
    except Exception as error:  # whatever half a pickle makes of itself
        logging.getLogger(__name__).warning(
            "Ray Tune's state in %s cannot be read (%s); beginning again", folder, error
        )
        return None


def _record(context: SearchContext, search: Search, result: Any, lost: Mapping[str, Point]) -> dict[str, Any]:
    report = dict(result.metrics or {})
    point = lost.get(result.path) or point_of(result.config or {})
    status = report.get("status", TrialStatus.LOST)
    # A trial may err without Ray keeping its error; and if nobody stops trials, none ends in the middle.
    broke_off = status == TrialStatus.RUNNING and search.scheduler == "fifo"
    if result.error is not None or result.path in lost or broke_off:
        status = TrialStatus.LOST
        reason = " ".join(str(result.error or "").split())[-300:]
        report["reason"] = reason or "its process ended before the trial did (--verbose shows what it printed)"
    elif status == TrialStatus.RUNNING:
        status = TrialStatus.STOPPED
    return {**report, "trial": context.trial_id(point), "point": point, "status": status}


def _trainable(context: SearchContext) -> Any:
    """Return what Tune runs, with what it holds while it runs."""
    shared = {"context": context, "claims": RemoteClaims()}
    if context.workers.count == 1:
        trainable = tune.with_parameters(OneWorkerTrial, **shared)
        held = {"CPU": context.workers.cpus} | ({"GPU": context.workers.gpus} if context.workers.gpus else {})
    else:
        trainable = tune.with_parameters(group_trial, **shared)
        # A driver with a CPU of its own would keep it from the workers that it waits for; none at all is refused.
        held = {"memory": 1_000_000}
    return tune.with_resources(trainable, held)


def scheduler_of(context: SearchContext, search: Search) -> Any:
    """Tune's scheduler; with several objectives ASHA goes by the first."""
    if search.scheduler == "fifo":
        return FIFOScheduler()
    first = context.asked[0]
    return AsyncHyperBandScheduler(
        time_attr=SINCE_FORKS,
        metric=first.name,
        mode=first.mode,
        max_t=search.rungs.most,
        grace_period=search.rungs.first,
        reduction_factor=REDUCTION,
    )


def run_here(context: SearchContext, search: Search) -> list[dict[str, Any]]:
    """Run the same search without a cluster: trial after trial in this process, with Tune's scheduler deciding.

    For lists of points (grid, random). Reports are those of `run_search` with one trial at a time.
    """
    scheduler, images, claims = scheduler_of(context, search), context.images(), Leases()
    reports = []
    for number, point in enumerate(
        trial_list(search.space, context.recipe, search.search, search.trials, context.seed)
    ):
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        run = TrialRun(context, point, images, Group(), context.device)
        report = run.finished()
        if report is None:
            run.begin(claims)
        while report is None or report["status"] == TrialStatus.RUNNING:
            report = run.advance()
            if (
                report["status"] == TrialStatus.RUNNING
                and scheduler.on_trial_result(None, trial, report) == scheduler.STOP
            ):
                report["status"] = TrialStatus.STOPPED
        scheduler.on_trial_complete(None, trial, report)
        reports.append({**report, "point": point})
    return reports


def _tuner(context: SearchContext, search: Search, trainable: Any, name: str, points: list[Point] | None) -> tune.Tuner:
    space, suggesting, samples = {}, None, search.trials
    if points is not None:
        space, samples = {POINT: tune.grid_search(points)}, 1
    elif search.search == "optuna":
        suggesting = optuna_search(context, search.space, search.trials)
    else:
        points = trial_list(search.space, context.recipe, search.search, search.trials, context.seed)
        space, samples = {POINT: tune.grid_search(points)}, 1
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=suggesting,
            scheduler=scheduler_of(context, search),
            num_samples=samples,
            max_concurrent_trials=at_once(context.workers, ray.cluster_resources(), search.concurrent),
            reuse_actors=context.workers.count == 1,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=context.out,
            failure_config=tune.FailureConfig(max_failures=search.max_failures),
            # Trials of several workers have Ray Train's checkpoints, not Tune's.
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=2, checkpoint_frequency=1 if context.workers.count == 1 else 0
            ),
            callbacks=[Watcher()],
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    return f"trial_{trial.trial_id}"


def _quieten() -> None:
    """Files and lines of Tune's that nobody reads here; snapshots often enough to lose little with the driver."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
    # Tune would end a search at Ctrl-C as if it were over; the job ends instead, and resumes when it is called again.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # data.root may be relative
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)
