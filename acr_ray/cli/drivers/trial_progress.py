"""A search's progress as lines."""

from __future__ import annotations

import time
from typing import Any

from acr_ray.cli.progress import SECONDS, Waiting, clock
from acr_ray.formats.files import TRIALS
from acr_ray.formats.states import TrialStatus
from acr_ray.storage import Folder
from acr_ray.tuning.kept_files import read_report
from acr_ray.tuning.space import Point
from acr_ray.tuning.trial_run import SearchContext


class TrialLines:
    """A line for every trial that ends, with the best so far and the time left; between them one now and then."""

    def __init__(self, context: SearchContext, trials: int, waiting: Waiting) -> None:
        self._objective, self._epochs, self._trials = context.asked[0], context.recipe.training.epochs, trials
        self._started = self._printed = time.monotonic()
        # Of an earlier process: trials that came to their end. Those that were stopped early are not counted again.
        done = Folder(context.out) / TRIALS
        self._ended: dict[str, float] = {
            name.removesuffix(".json"): float(read_report(done, name).get(self._objective.name) or "nan")
            for name in done.names(".json")
        }
        self._before = len(self._ended)
        if self._before:
            print(f"resuming: {self._before} of {trials} trials are done", flush=True)
        self._epoch: dict[str, int] = {}
        self._waiting = waiting

    def __call__(self, point: Point, report: dict[str, Any]) -> None:
        self._line(point, report)
        self._waiting.begin("no trial has reported anything", at_once=False)

    def _line(self, point: Point, report: dict[str, Any]) -> None:
        trial, now = report["trial"], time.monotonic()
        self._epoch[trial] = report["epoch"]
        if report["status"] == TrialStatus.RUNNING:
            if now - self._printed > 3 * SECONDS:
                self._printed = now
                print(f"trial {trial}: epoch {report['epoch']}/{self._epochs}  {self._left(now)}", flush=True)
            return
        if trial in self._ended:
            return
        value = report[self._objective.name]
        self._ended[trial] = value if report["status"] == TrialStatus.FINISHED else float("nan")
        self._printed = now
        values = " ".join(f"{field.rpartition('.')[2]}={_short(v)}" for field, v in point.items())
        line = f"{len(self._ended)}/{self._trials}  {trial}  {values}  {report['status']}"
        line += f" at epoch {report['epoch']}" if report["status"] == TrialStatus.STOPPED else ""
        if report["status"] == TrialStatus.FAILED:
            line += f": {report['reason'][:100]}"
        else:
            line += f"  {self._objective.name} {value:.4f}"
        known = [v for v in self._ended.values() if v == v]
        if known:
            best = max(known) if self._objective.sign > 0 else min(known)
            line += f"  best {best:.4f}"
        print(f"{line}  {self._left(now)}", flush=True)

    def _left(self, now: float) -> str:
        """By the trials that have ended, each weighed alike; what runs now counts for the share it has done."""
        running = [epoch / self._epochs for trial, epoch in self._epoch.items() if trial not in self._ended]
        done = len(self._ended) - self._before + sum(running)
        left = max(0.0, self._trials - self._before - done)
        return f"{clock((now - self._started) / done * left)} left" if done else ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
