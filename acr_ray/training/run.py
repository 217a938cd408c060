"""A training run as the driver sees it: Ray Train's trainer, followed through the files that the workers write."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from acr_ray.settings import Recipe, UserError
from acr_ray.settings.documents import check
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from acr_ray.storage import Folder
from acr_ray.training.following import Follower
from acr_ray.training.loop import TrainingStopped, check_workers
from acr_ray.training.named_files import Contents
from acr_ray.training.p_a_file import FOLDER as P_A
from acr_ray.training.requests import GRACE, RUNNING, STARTING, STEERING, STOP, steer, steering
from acr_ray.training.worker import BEST, CHECKPOINT, METRICS, NOTES, PROBLEM, PROFILE, STATE_FOLDER, train_worker

RAY_FOLDER = "ray"
OWNED = (
    RAY_FOLDER, STATE_FOLDER, CHECKPOINT, BEST, PROFILE, METRICS, PROBLEM, NOTES, STEERING, P_A, "summary.json",
)  # fmt: skip


@dataclass(frozen=True)
class Workers:
    """Hardware of a run; decides the last bits of the result, so it is part of the run's identity.

    Attributes:
        count: DDP workers; with ``most`` the fewest that the run goes on with.
        most: workers used where the cluster has room for them; None: always ``count``.
    """

    count: int = 1
    gpus: float = 0
    cpus: int = 1
    most: int | None = None

    @property
    def text(self) -> int | str:
        """As the user gives it: ``2``, or ``2:8``."""
        return self.count if self.most is None else f"{self.count}:{self.most}"

    def check_fits(self) -> None:
        """Raises UserError where the cluster could never hold the workers (Ray Train would wait for ever)."""
        import ray

        total = ray.cluster_resources()
        for kind, needed in (("CPU", self.count * self.cpus), ("GPU", self.count * self.gpus)):
            if needed > total.get(kind, 0):
                raise UserError(
                    f"--workers {self.text}: need {needed:g} {kind}s, the cluster has {total.get(kind, 0):g}; "
                    "use fewer workers, or a larger cluster"
                )


@dataclass(frozen=True)
class Keeping:
    """Checkpoints of a run that goes on, and what else is asked of it; none of it changes what is trained.

    Attributes:
        every: epochs between checkpoints.
        minutes: between checkpoints within an epoch; None: none there.
        last: how many of the last are kept, beside the best.
        best_by: ``loss`` or ``accuracy`` of an epoch's record.
        max_failures: lost workers or nodes survived before giving up.
        resize_seconds: between looks for room for more workers, where their number may change.
        profile: leave traces of a few steps in ``profile/``.
    """

    every: int = 1
    minutes: float | None = None
    last: int = 2
    best_by: str = "loss"
    max_failures: int = 8
    resize_seconds: float = 60.0
    profile: bool = False


def run_training(
    recipe: Recipe,
    out: Folder,
    *,
    seed: int,
    workers: Workers,
    fingerprint: str,
    images: int,
    contents: Contents | None = None,
    keeping: Keeping = Keeping(),  # noqa: B008 - frozen
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
    for name in (PROBLEM, STEERING):  # deleting works on a full disk, too
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
            "checkpoint_every": keeping.every,
            "checkpoint_minutes": keeping.minutes,
            "keep_checkpoints": keeping.last,
            "best_by": keeping.best_by,
            "profile": keeping.profile,
            "fingerprint": fingerprint,
            "contents": dict(contents or {}),
        },
        torch_config=listening_torch("nccl" if workers.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.count if workers.most is None else (workers.count, workers.most),
            elastic_resize_monitor_interval_s=keeping.resize_seconds,
            use_gpu=bool(workers.gpus),
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=out.uri,
            failure_config=FailureConfig(max_failures=keeping.max_failures),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        ),
    )
    with Follower(out, on_epoch, on_note):
        try:
            problem = (_fit(trainer, keeping.max_failures, on_note).return_value or {}).get("problem")
        except SystemExit:
            _ask_to_stop(out)
            raise
        finally:
            _raise_problem(out)
    if problem:
        _raise(problem)
    for name in (RAY_FOLDER, STATE_FOLDER, STEERING):
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
