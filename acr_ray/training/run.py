"""A training run as the driver sees it: Ray Train's trainer, followed through the files that the workers write."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any, NoReturn

from acr_ray.settings import Recipe, UserError
from acr_ray.settings.documents import check
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from acr_ray.storage import Folder
from acr_ray.training.following import Follower
from acr_ray.training.loop import TrainingStopped, check_workers
from acr_ray.training.named_files import Contents
from acr_ray.training.p_a_file import FOLDER as P_A
from acr_ray.training.requests import CONTROL, GRACE, RUNNING, STARTING, STOP, steer, steering
from acr_ray.training.worker import BEST, CHECKPOINT, METRICS, NOTES, PROBLEM, PROFILE, STATE_FOLDER, train_worker
from acr_ray.training.workers import CheckpointPolicy, Workers

RAY_FOLDER = "ray"
OWNED = (
    RAY_FOLDER, STATE_FOLDER, CHECKPOINT, BEST, PROFILE, METRICS, PROBLEM, NOTES, CONTROL, P_A, "summary.json",
)  # fmt: skip


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
    """Train to the last epoch, from the run's last intact checkpoint where there is one.

    Where this process is told to end (SIGTERM), the workers are asked to save within an epoch first, and have
    `GRACE` seconds to.

    Args:
        out: gets ``checkpoint/`` and ``metrics.jsonl``; checkpoints to go on from are in ``state/``, Ray Train's own
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
    for name in (PROBLEM, CONTROL):  # deleting works on a full disk, too
        out.delete(name)
    steer(out, STARTING)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "run": f"{recipe.name}:{out.uri.rsplit('/', 1)[-1]}",
            "recipe": recipe.model_dump(mode="json"),
            "seed": seed,
            "out": out.uri,
            "threads": workers.cpus,
            "checkpoint_every": policy.every,
            "checkpoint_minutes": policy.minutes,
            "keep_checkpoints": policy.last,
            "best_by": policy.best_by,
            "profile": policy.profile,
            "fingerprint": fingerprint,
            "contents": dict(contents or {}),
        },
        torch_config=listening_torch("nccl" if workers.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.count if workers.most is None else (workers.count, workers.most),
            elastic_resize_monitor_interval_s=policy.resize_seconds,
            use_gpu=bool(workers.gpus),
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=out.uri,
            failure_config=FailureConfig(max_failures=policy.max_failures),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        ),
    )
    with Follower(out, on_epoch, on_note):
        try:
            problem = (_fit(trainer, policy.max_failures, on_note).return_value or {}).get("problem")
        except SystemExit:
            _ask_to_stop(out)
            raise
        finally:
            _raise_problem(out)
    if problem:
        _raise(problem)
    for name in (RAY_FOLDER, STATE_FOLDER, CONTROL):
        out.delete(name)


def _fit(trainer: Any, max_failures: int, on_note: Callable[[str], None]) -> Any:
    """The trainer's result, also where a worker dies while they are being started: Ray Train would give up there."""
    from ray.exceptions import RayActorError
    from ray.train import ControllerError

    for failures in itertools.count(1):
        try:
            return trainer.fit()
        except ControllerError as error:
            if failures > max_failures or not isinstance(error.controller_failure, RayActorError):
                raise
            on_note("a worker was lost while the workers were starting; they are started again")


def _ask_to_stop(out: Folder) -> None:
    """Have the workers save where they are, and wait for it; those that are not at work yet have nothing to save."""
    if steering(out) != RUNNING:
        steer(out, STOP)
        return
    steer(out, STOP)
    until = time.monotonic() + GRACE
    while steering(out) == STOP and time.monotonic() < until:
        time.sleep(0.2)


def _raise_problem(out: Folder) -> None:
    if out.is_file(PROBLEM):
        problem = check(dict[str, str], out.read_json(PROBLEM), f"{out}/{PROBLEM}")
        out.delete(PROBLEM)
        _raise(problem)


def _raise(problem: dict[str, str]) -> NoReturn:
    kind = UserError if problem.get("kind") == "user" else TrainingStopped
    raise kind(problem.get("text", "the workers stopped, and the reason they left is damaged"))
