"""Ray for this process: the cluster of RAY_ADDRESS, or a private one on loopback; and whether it has room."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from acr_ray.cli.progress import Waiting
from acr_ray.preflight.reach import check_reachable, explained
from acr_ray.settings import Recipe
from acr_ray.settings.errors import UserError
from acr_ray.storage.node_checks import shared_memory_problem
from acr_ray.training.workers import Workers

#: Ray's own switch for machines that form no cluster: their node's address is 127.0.0.1, and Ray then listens nowhere
#: else. Without it Ray puts the machine's address in place of a loopback one, and listens on all of them.
ONE_NODE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def connect(verbose: bool = False) -> None:
    """Join the Ray cluster of RAY_ADDRESS (a job's own included), or start a private one for this process.

    Raises:
        UserError: the cluster can't be reached or refuses this process, or shared memory is too small.
    """
    import ray

    if ray.is_initialized():
        return
    if problem := shared_memory_problem():
        raise UserError(problem)
    logging.getLogger("ray").setLevel(logging.INFO if verbose else logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # Ray puts a handler of its own in place of ours: the process would abort instead of closing what is open.
    on_sigterm = signal.getsignal(signal.SIGTERM)
    options: dict = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.WARNING}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_reachable(address)
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError) as error:
            raise explained(address, error) from error
    else:
        with loopback_only():
            ray.init(address="local", include_dashboard=False, **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)


@contextmanager
def loopback_only() -> Iterator[None]:
    """Keep a Ray that is started inside on loopback, and closed to everyone else on this machine.

    What the user has chosen (``RAY_AUTH_MODE``) stays.
    """
    before = os.environ.get(ONE_NODE)
    os.environ[ONE_NODE] = "0"
    if "RAY_AUTH_MODE" not in os.environ:
        # For this process and those that it starts; it ends with them.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with suppress(ImportError, AttributeError):  # Ray has read both when it was imported
        from ray._private import ray_constants
        from ray._raylet import Config  # type: ignore[attr-defined]  # compiled: no stubs

        ray_constants.ENABLE_RAY_CLUSTER = False
        Config.initialize("")
    try:
        yield
    finally:
        if before is None:
            del os.environ[ONE_NODE]
        else:
            os.environ[ONE_NODE] = before


def check_actors_fit(actors: tuple[int, int] | None, gpus_per_actor: float, verbose: bool) -> None:
    """Connect, and raise UserError if the samplers asked for would never start."""
    from acr_ray.certification.sampler_pool import Actors

    _connect_and_say(verbose)
    Actors.fitting(actors, gpus_per_actor)


def check_workers_fit(workers: Workers, recipe: Recipe, images: int, verbose: bool) -> None:
    """Connect, and raise UserError if a training's workers would never start, would have nothing to do, or no GPU."""
    from acr_ray.preflight.nodes import problem_of_a_gpu
    from acr_ray.training.loop import check_workers

    _connect_and_say(verbose)
    workers.check_fits()
    check_workers(recipe, images, workers.most or workers.count)
    if problem := problem_of_a_gpu(workers.cpus, workers.gpus):
        raise UserError(problem)


def _connect_and_say(verbose: bool) -> None:
    import ray

    if ray.is_initialized():
        return
    with Waiting() as waiting:
        waiting.begin("starting Ray")
        connect(verbose)
