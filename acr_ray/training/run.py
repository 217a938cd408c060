"""A training run as the driver sees it: Ray Train's trainer, followed through the files that the workers write."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from acr_ray.settings import Recipe, UserError
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from acr_ray.storage import Folder
from acr_ray.training.loop import TrainingStopped
from acr_ray.training.worker import CHECKPOINT, METRICS, PROBLEM, train_worker

RAY_FOLDER = "ray"
OWNED = (RAY_FOLDER, CHECKPOINT, METRICS, PROBLEM, "summary.json")


@dataclass(frozen=True)
class Workers:
    """Hardware of a run; decides the last bits of the result, so it is part of the run's identity."""

    count: int = 1
    gpus: float = 0
    cpus: int = 1

    def check_fits(self) -> None:
        """Raises UserError where the cluster could never hold the workers (Ray Train would wait for ever)."""
        import ray

        total = ray.cluster_resources()
        for kind, needed in (("CPU", self.count * self.cpus), ("GPU", self.count * self.gpus)):
            if needed > total.get(kind, 0):
                raise UserError(
                    f"--workers {self.count}: need {needed:g} {kind}s, the cluster has {total.get(kind, 0):g}; "
                    "use fewer workers, or a larger cluster"
                )


def run_training(
    recipe: Recipe,
    out: Folder,
    *,
    seed: int,
    workers: Workers,
    fingerprint: str,
    checkpoint_every: int = 1,
    max_failures: int = 8,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> None:
    """Train to the last epoch, from the run's last checkpoint where there is one.

    Args:
        out: gets ``checkpoint/`` and ``metrics.jsonl``; Ray Train's own files are in ``ray/`` until the run is done.
        fingerprint: of the training images, as the driver sees them.
        checkpoint_every: epochs between checkpoints.
        max_failures: lost workers or nodes survived before giving up.
        on_epoch: called from another thread with the record of each new epoch once.

    Raises:
        UserError, TrainingStopped: as in the workers.
        ray.train.TrainingFailedError: workers were lost more than ``max_failures`` times.
    """
    # Read by Ray Train's controller when it starts: it takes one report in each interval, and short epochs queue.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    workers.check_fits()
    out.delete(PROBLEM)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "seed": seed,
            "out": out.uri,
            "threads": workers.cpus,
            "checkpoint_every": checkpoint_every,
            "fingerprint": fingerprint,
        },
        torch_config=TorchConfig(backend="nccl" if workers.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=bool(workers.gpus),
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=out.uri,
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=max_failures),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        ),
    )
    with Follower(out, on_epoch):
        try:
            trainer.fit()
        finally:
            _raise_problem(out)
    out.delete(RAY_FOLDER)


def records(out: Folder) -> list[dict[str, Any]]:
    """The records of the epochs done, from metrics.jsonl."""
    text = out.read_text(METRICS) if out.is_file(METRICS) else ""
    return [json.loads(line) for line in text.splitlines()]


class Follower:
    """Reads metrics.jsonl while it grows and hands on the record of each new epoch once."""

    def __init__(self, out: Folder, on_epoch: Callable[[dict[str, Any]], None], interval: float = 0.5) -> None:
        self._out, self._on_epoch, self._interval = out, on_epoch, interval
        self._done = threading.Event()
        self._seen = len(records(out))
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.wait(self._interval):
            self._read()
        self._read()

    def _read(self) -> None:
        found = records(self._out)
        for record in found[self._seen :]:
            self._on_epoch(record)
        # After a fault the workers begin again at a checkpoint, and the file is shorter for a while.
        self._seen = max(self._seen, len(found))


def _raise_problem(out: Folder) -> None:
    if out.is_file(PROBLEM):
        problem = out.read_json(PROBLEM)
        out.delete(PROBLEM)
        raise (UserError if problem["kind"] == "user" else TrainingStopped)(problem["text"])
