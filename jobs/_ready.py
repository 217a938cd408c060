"""What the cluster must have room for, asked before a run makes or replaces anything."""

from __future__ import annotations

import argparse

from jobs._progress import Waiting
from jobs._run import connect


def actors_fit(options: argparse.Namespace) -> None:
    """Raises UserError where the samplers asked for would never start."""
    from acr_ray.certification.sampler_pool import Actors

    _connected(options.verbose)
    Actors.fitting(options.actors, options.gpus_per_actor)


def workers_fit(workers, recipe, images: int, verbose: bool) -> None:
    """Raises UserError where a training's workers would never start, or some would have nothing to do."""
    from acr_ray.training.loop import check_workers

    _connected(verbose)
    workers.check_fits()
    check_workers(recipe, images, workers.most or workers.count)


def _connected(verbose: bool) -> None:
    import ray

    if ray.is_initialized():
        return
    with Waiting() as waiting:
        waiting.begin("starting Ray")
        connect(verbose)
