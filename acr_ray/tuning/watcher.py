"""What a search's driver hears of its trials while Ray Tune runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ray import tune

from acr_ray.formats.states import TrialStatus
from acr_ray.tuning.placement import LeakedGroups
from acr_ray.tuning.space import Point
from acr_ray.tuning.trial import point_of

OnReport = Callable[[Point, dict[str, Any]], None]  # gets a trial's point and each of its reports


@dataclass
class Watched:
    """One search's trials, as far as its driver has heard.

    Attributes:
        on_report: gets each report.
        lost: points by folder of trials that broke off: Tune's results know only those of trials that reported.
        leaked: placement groups to be freed.
    """

    on_report: OnReport
    lost: dict[str, Point] = field(default_factory=dict)
    leaked: LeakedGroups = field(default_factory=LeakedGroups)


# Tune pickles its callbacks and, in a search that resumes, has copies of them: a callback can hold nothing of this
# process. It finds the search that runs in its thread here, for as long as that runs.
_WATCHED: ContextVar[Watched] = ContextVar("watched")


@contextmanager
def watching(on_report: OnReport) -> Iterator[Watched]:
    """Have `Watcher` hand on what is heard of the search that runs in here; placement groups are freed at its end."""
    watched = Watched(on_report)
    token = _WATCHED.set(watched)
    try:
        yield watched
    finally:
        _WATCHED.reset(token)
        watched.leaked.free_all()


class Watcher(tune.Callback):
    """Hands on what trials report. For use within `watching`."""

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        _WATCHED.get().lost[trial.path] = point_of(trial.config)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        _WATCHED.get().on_report(point_of(trial.config), result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        report = trial.last_result or {}
        if report.get("status") == TrialStatus.RUNNING:
            _WATCHED.get().on_report(point_of(trial.config), {**report, "status": TrialStatus.STOPPED})

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        _WATCHED.get().leaked.free_unused()
