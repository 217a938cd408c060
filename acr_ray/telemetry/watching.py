"""From what a driver hears of its run to metrics."""

from __future__ import annotations

from collections import Counter
from typing import Any

from acr_ray.formats.states import TrialStatus
from acr_ray.telemetry.meters import Meters
from acr_ray.telemetry.progress import CertificationProgress


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
        before: noise draws that earlier processes have made: those are not this process's to count.
    """

    def __init__(self, run: str, before: int = 0) -> None:
        self._meters, self._before, self._seen = Meters("certify", run), before, -1

    def __call__(self, progress: CertificationProgress) -> None:
        meters = self._meters
        meters.set("acr_images", progress.images)
        meters.set("acr_images_done", progress.images_done)
        meters.set("acr_samplers", progress.actors)
        meters.set("acr_noisy_samples_per_second", progress.rate)
        meters.set("acr_seconds_left", progress.seconds_left)
        meters.count_to("acr_noisy_samples", progress.noise_draws - self._before)
        if progress.noise_draws != self._seen:
            self._seen = progress.noise_draws
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
            if status != TrialStatus.RUNNING:
                self._meters.set("acr_trials_done", count, status=status)
        self._meters.progress()
