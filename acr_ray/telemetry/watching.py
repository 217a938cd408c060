"""From what a driver hears of its run to metrics."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from acr_ray.telemetry.meters import Meters


class CertificationProgress(Protocol):
    """How far a certification is."""

    images_done: int
    images: int
    evaluations: int
    rate: float
    actors: int
    seconds_left: float


class EpochMeters:
    """Takes each epoch's record of a training run."""

    def __init__(self, run: str, epochs: int) -> None:
        self._meters, self._epochs = Meters("train", run), epochs

    def __call__(self, record: dict[str, Any], mlflow_behind: bool = False) -> None:
        meters, timing = self._meters, record.get("timing", {})
        meters.set("acr_epochs", self._epochs)
        meters.set("acr_epochs_done", record["epoch"] + 1)
        meters.set("acr_loss", record["loss"])
        meters.set("acr_remaining_samples", record["remaining"])
        meters.set("acr_images_per_second", timing.get("images_per_s"))
        for name, share in timing.items():
            if name.endswith("_share"):
                meters.set("acr_time_share", share, part=name.removesuffix("_share"))
        for step, share in enumerate(record.get("attack_active", ()), 1):
            meters.set("acr_attack_active_share", share, step=str(step))
        meters.set("acr_mlflow_behind", float(mlflow_behind))
        meters.progress()


class CertificationMeters:
    """Takes how far a certification is, as often as its coordinator looks.

    Args:
        before: noisy samples that earlier processes have drawn: those are not this process's to count.
    """

    def __init__(self, run: str, before: int = 0) -> None:
        self._meters, self._before, self._seen = Meters("certify", run), before, -1

    def __call__(self, standing: CertificationProgress) -> None:
        meters = self._meters
        meters.set("acr_images", standing.images)
        meters.set("acr_images_done", standing.images_done)
        meters.set("acr_samplers", standing.actors)
        meters.set("acr_noisy_samples_per_second", standing.rate)
        meters.set("acr_seconds_left", standing.seconds_left)
        meters.count_to("acr_noisy_samples", standing.evaluations - self._before)
        if standing.evaluations != self._seen:
            self._seen = standing.evaluations
            meters.progress()


class TrialMeters:
    """Takes the reports of a search's trials."""

    def __init__(self, run: str, trials: int) -> None:
        self._meters, self._trials = Meters("tune", run), trials
        self._status: dict[str, str] = {}

    def __call__(self, point: dict[str, Any], report: dict[str, Any]) -> None:
        self._status[report["trial"]] = report["status"]
        self._meters.set("acr_trials", self._trials)
        for status, count in Counter(self._status.values()).items():
            if status != "running":
                self._meters.set("acr_trials_done", count, status=status)
        self._meters.progress()
