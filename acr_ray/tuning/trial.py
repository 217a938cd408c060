"""Trials as Ray Tune runs them, and the actor that keeps two of them from making the same trunk."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from acr_ray.formats.files import SEARCH_BEGUN, TUNE_TRAIN
from acr_ray.formats.states import TrialStatus
from acr_ray.settings import UserError
from acr_ray.settings.hardware import group_environment
from acr_ray.storage import Folder
from acr_ray.storage.node_checks import gpu_problem, node_problem
from acr_ray.training.group import Group
from acr_ray.tuning.leases import Leases
from acr_ray.tuning.space import Point
from acr_ray.tuning.trial_run import SearchContext, TrialRun

POINT = "point"  # where a list of points stands in Tune's configuration


def check_node(context: SearchContext) -> None:
    """Raise UserError if this machine lacks what a trial needs."""
    if problem := node_problem(Folder(context.out), SEARCH_BEGUN):
        raise UserError(problem)


def point_of(config: dict[str, Any]) -> Point:
    """Return a trial's values: from a list of points, or as a searcher suggests them."""
    return config.get(POINT, config)


class RemoteClaims:
    """`Claims` kept by one actor for all trials of a search, wherever they run."""

    def __init__(self) -> None:
        # No CPU: trials wait for it while they hold theirs. Restarted, it has forgotten all claims; then a trunk
        # may be trained twice, which costs time and changes nothing.
        self._actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Leases).remote()

    def ask(self, name: str, owner: str) -> bool:
        return ray.get(self._actor.ask.remote(name, owner))

    def release(self, name: str, owner: str) -> None:
        ray.get(self._actor.release.remote(name, owner))


class OneWorkerTrial(tune.Trainable):
    """A trial with one worker: the training loop runs in Tune's own actor.

    Ray Train would put a controller, a placement group and a worker of its own below the trial: about 18 seconds
    a trial on two cores, more than a trial on digits takes to train. There is no group of workers to look after here,
    checkpoints and restarts are Tune's, and the actor is used again for the next trial. The loop is the same one.
    """

    def setup(  # type: ignore[override]  # `tune.with_parameters` gives the last two
        self, config: dict[str, Any], context: SearchContext, claims: RemoteClaims
    ) -> None:
        check_node(context)
        # The driver has asked the nodes that were there; this one may have come since.
        if context.workers.gpus and (problem := gpu_problem()):
            raise UserError(problem)
        torch.set_num_threads(context.workers.cpus)
        self._context, self._claims, self._images = context, claims, context.images()
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._open(new_config)
        return True

    def _open(self, config: dict[str, Any]) -> None:
        self._run = TrialRun(self._context, point_of(config), self._images, Group(), self._context.device)
        self._begun = False

    def step(self) -> dict[str, Any]:
        report = self._run.finished()
        if report is None:
            if not self._begun:
                self._run.begin(self._claims)
                self._begun = True
            report = self._run.advance()
        return report | {"done": report["status"] != TrialStatus.RUNNING}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self._run.save(Path(checkpoint_dir))

    # Ray gives back what `save_checkpoint` wrote to: its folder, though its types say a mapping alone.
    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        self._run.load(Path(checkpoint))
        self._begun = True


def group_trial(config: dict[str, Any], context: SearchContext, claims: RemoteClaims) -> None:
    """A trial with several workers: Ray Train looks after them, this function after Ray Train.

    The inner run is named after the trial, so it resumes where it was, whatever was killed.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from acr_ray.training.backend import TIMEOUT_S

    point, workers = point_of(config), context.workers
    trainer = TorchTrainer(
        group_worker,
        train_loop_config={"context": context, "point": point, "claims": claims},
        torch_config=TorchConfig(backend="nccl" if workers.gpus else "gloo", timeout_s=TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=bool(workers.gpus),
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        # Ray's types are those of Train's version 1, which has neither this callback nor the workers' environment.
        run_config=RunConfig(  # type: ignore[call-arg]
            name=context.trial_id(point),
            storage_path=f"{context.out}/{TUNE_TRAIN}",
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=8),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            worker_runtime_env={"env_vars": group_environment(os.environ)},
        ),
    )
    trainer.fit()
    (Folder(context.out) / TUNE_TRAIN).delete(context.trial_id(point))


def group_worker(config: dict[str, Any]) -> None:
    """One of a trial's workers."""
    import ray.train
    import ray.train.torch

    context: SearchContext = config["context"]
    check_node(context)
    torch.set_num_threads(context.workers.cpus)
    device = str(ray.train.torch.get_device())
    run = TrialRun(context, config["point"], context.images(), Group(device), device)
    report = run.finished()
    if report is None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            run.begin(config["claims"])
        else:
            with checkpoint.as_directory() as folder:
                run.load(Path(folder))
    while report is None or report["status"] == TrialStatus.RUNNING:
        report = run.advance()
        if report["status"] == TrialStatus.RUNNING:
            _report_with_checkpoint(run, report)
    ray.train.report(report)


def _report_with_checkpoint(run: TrialRun, report: dict[str, Any]) -> None:
    if run.group.rank != 0:
        ray.train.report(report)
        return
    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder))
        name = f"epoch_{report['epoch']:05d}_{uuid.uuid4().hex[:8]}"
        ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder), checkpoint_dir_name=name)
