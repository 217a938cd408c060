"""A run's model in MLflow's model registry."""

from __future__ import annotations

from acr_ray.cli.session import RunOptions
from acr_ray.tracking import Tracker


def register(tracker: Tracker, options: RunOptions) -> None:
    """Make the run's model a version of the model that the user named, if any, and say so."""
    if options.register is None:
        return
    if version := tracker.register(options.register):
        print(f"registered: models:/{options.register}/{version}", flush=True)
    else:
        print(f"warning: not registered as {options.register}; the same command again does it", flush=True)
