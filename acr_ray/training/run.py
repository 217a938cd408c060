"""A training run as the driver sees it: Ray Train's trainer, followed through the files that the workers write."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from acr_ray.formats.files import (
    BEST_CHECKPOINT,
    CHECKPOINT,
    CONTROL,
    EVENTS,
    METRICS,
    P_A,
    PROBLEM,
    PROFILE,
    RAY_TRAIN,
    STATE,
    SUMMARY,
)
from acr_ray.formats.states import RunState
from acr_ray.settings import Recipe
from acr_ray.settings.hardware import group_environment
from acr_ray.storage import Folder
from acr_ray.training.control.channel import ControlChannel
from acr_ray.training.control.follower import Follower
from acr_ray.training.control.messages import WorkerConfig, WorkerResult
from acr_ray.training.loop import check_workers
from acr_ray.training.named_files import Contents
from acr_ray.training.worker import train_worker
from acr_ray.training.workers import CheckpointPolicy, Workers

OWNED = (RAY_TRAIN, STATE, CHECKPOINT, BEST_CHECKPOINT, PROFILE, METRICS, PROBLEM, EVENTS, CONTROL, P_A, SUMMARY)
GRACE = 30.0  # seconds in which workers that are asked to stop have saved


def run_training(
    recipe: Recipe,
    out: Folder,
    *,
    seed: int,
    workers: Workers,
    fingerprint: str,
    images: int,
    contents: Contents | None = None,
    policy: CheckpointPolicy = CheckpointPolicy(),  # noqa: B008 - frozen
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> None:
    """Train to the last epoch, from the run's last intact checkpoint if there is one.

    If this process is told to end (SIGTERM), the workers are asked to save within an epoch first, and have
    `GRACE` seconds to.

    Args:
        out: gets ``checkpoint/`` and ``metrics.jsonl``; checkpoints to resume from are in ``state/``, Ray Train's own
            files in ``ray/``, until the run is done.
        fingerprint: of the training images, as the driver sees them.
        images: how many they are.
        contents: of what the recipe names by path, see `check_named`.
        on_epoch: called from another thread with the record of each new epoch once.
        on_note: called likewise with what the run survived: damaged checkpoints, a full disk.

    Raises:
        UserError, TrainingStopped: as in the workers.
        ray.train.TrainingFailedError: workers were lost too often.
    """
    # Read by Ray Train's controller when it starts: how soon it sees that workers have ended or failed.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from acr_ray.training.backend import listening_torch

    workers.check_fits()
    check_workers(recipe, images, workers.most or workers.count)
    channel = ControlChannel(out)
    channel.open()
    config = WorkerConfig(
        run=f"{recipe.name}:{out.uri.rsplit('/', 1)[-1]}",
        recipe=recipe,
        seed=seed,
        out=out.uri,
        threads=workers.cpus,
        checkpoint_every=policy.every,
        checkpoint_minutes=policy.minutes,
        keep_checkpoints=policy.last,
        best_by=policy.best_by,
        profile=policy.profile,
        fingerprint=fingerprint,
        contents=dict(contents or {}),
    )
    trainer = TorchTrainer(
        train_worker,  # type: ignore[arg-type]  # Ray's types allow no return value
        train_loop_config={"config": config},
        torch_config=listening_torch("nccl" if workers.gpus else "gloo", out.uri),
        # Ray's types are those of Train's version 1, which has no range of workers and not all of these options.
        scaling_config=ScalingConfig(  # type: ignore[call-arg]
            num_workers=workers.count if workers.most is None else (workers.count, workers.most),  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=policy.resize_seconds,
            use_gpu=bool(workers.gpus),
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(  # type: ignore[call-arg]
            name=RAY_TRAIN,
            storage_path=out.uri,
            failure_config=FailureConfig(max_failures=policy.max_failures),
            worker_runtime_env={"env_vars": group_environment(os.environ)},
        ),
    )
    with Follower(channel, on_epoch, on_note):
        try:
            result: WorkerResult | None = _fit(trainer, policy.max_failures, on_note).return_value
        except SystemExit:
            _ask_to_stop(channel)
            raise
        finally:
            if problem := channel.take_problem():
                raise problem.error()
    if result is not None and result.problem is not None:
        raise result.problem.error()
    for name in (RAY_TRAIN, STATE):
        out.delete(name)
    channel.close()


def _fit(trainer: Any, max_failures: int, on_note: Callable[[str], None]) -> Any:
    """Return the result, also if a worker dies while they are being started: Ray Train would give up there."""
    from ray.exceptions import RayActorError
    from ray.train import ControllerError

    for failures in itertools.count(1):
        try:
            return trainer.fit()
        except ControllerError as error:
            if failures > max_failures or not isinstance(error.controller_failure, RayActorError):
                raise
            on_note("a worker was lost while the workers were starting; they are started again")


def _ask_to_stop(channel: ControlChannel) -> None:
    """Have the workers save where they are, and wait for it; those that do not train yet have nothing to save."""
    training = channel.state() == RunState.RUNNING
    channel.set_state(RunState.STOP)
    until = time.monotonic() + GRACE
    while training and channel.state() == RunState.STOP and time.monotonic() < until:
        time.sleep(0.2)
