"""Metrics for Prometheus, exported by Ray on each node's metrics port beside Ray's own.

Ray puts ``ray_`` before the names, and ``_total`` behind those of counters. Every metric has the tags ``job`` (train,
certify, tune) and ``run`` (the MLflow run's name, and the folder's last part). They are set in the driver, which hears
of all progress anyway; workers and samplers lose no time with them.
"""

from __future__ import annotations

import logging
import time
from typing import Any

TAGS = ("job", "run")
GAUGES = {
    "acr_last_progress_timestamp_seconds": "when the run last got on, in seconds since 1970",
    "acr_mlflow_behind": "1 while MLflow lacks something that the run has logged, else 0",
    "acr_images": "images to certify",
    "acr_images_done": "images certified",
    "acr_samplers": "sampler actors that are ready",
    "acr_noisy_samples_per_second": "noisy forward passes a second since the first result, all samplers",
    "acr_seconds_left": "estimate of the time left",
    "acr_epochs": "epochs of the recipe",
    "acr_epochs_done": "epochs trained",
    "acr_loss": "mean loss of the last epoch",
    "acr_remaining_samples": "training samples that were not discarded",
    "acr_images_per_second": "noisy samples trained on a second, all workers, last epoch",
    "acr_trials": "trials of the search",
}
# With one more tag.
TAGGED = {
    "acr_attack_active_share": ("step", "share of noise draws still correct before a step of the attack, last epoch"),
    "acr_time_share": (
        "part",
        "share of the last epoch's time spent in a part: data, attack, forward_backward and others",
    ),
    "acr_trials_done": ("status", "trials that have ended"),
}
COUNTERS = {"acr_noisy_samples": "noisy forward passes whose counts have come in"}


class Meters:
    """The metrics of one run. Does nothing if Ray is not connected, and never raises.

    Args:
        job: ``train``, ``certify`` or ``tune``.
        run: the run's name.
    """

    def __init__(self, job: str, run: str) -> None:
        self._tags = {"job": job, "run": run}
        self._made: dict[str, Any] = {}
        self._counted: dict[str, float] = {}

    def set(self, name: str, value: float, **tag: str) -> None:
        """Set a gauge; infinite and missing values are left out."""
        if value is None or value != value or abs(value) == float("inf"):
            return
        self._use(name, lambda metric: metric.set(float(value), tags=self._tags | tag))

    def count_to(self, name: str, total: float) -> None:
        """Raise a counter to a total that only grows."""
        more = total - self._counted.get(name, 0.0)
        if more > 0:
            self._counted[name] = total
            self._use(name, lambda metric: metric.inc(more, tags=self._tags))

    def progress(self) -> None:
        """The run has got on."""
        self.set("acr_last_progress_timestamp_seconds", time.time())

    def _use(self, name: str, use: Any) -> None:
        import ray

        if not ray.is_initialized():
            return
        try:
            if name not in self._made:
                self._made[name] = _metric(name)
            use(self._made[name])
        except Exception as error:  # a number less on a dashboard is no reason to lose a run
            logging.getLogger(__name__).warning("metric %s could not be set (%s)", name, error)


def _metric(name: str) -> Any:
    from ray.util.metrics import Counter, Gauge

    if name in COUNTERS:
        return Counter(name, description=COUNTERS[name], tag_keys=TAGS)
    if name in TAGGED:
        tag, text = TAGGED[name]
        return Gauge(name, description=text, tag_keys=(*TAGS, tag))
    return Gauge(name, description=GAUGES[name], tag_keys=TAGS)
