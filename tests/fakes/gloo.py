"""DDP workers as plain processes on this machine: gloo, no Ray. They fork from one server that has loaded torch."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 240


def in_workers(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(rank, world, *arguments)`` in each worker of a gloo group; fails where one fails.

    Args:
        work: a function of a module (it is found by its name in the worker).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["acr_ray.training.loop", "acr_ray.models", "acr_ray.data"])
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with tempfile.TemporaryDirectory() as folder:
            meeting = f"file://{Path(folder) / 'meeting'}"
            workers = [
                context.Process(target=_begin, args=(work, rank, world, meeting, arguments), daemon=True)
                for rank in range(world)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(SECONDS)
            codes = [worker.exitcode for worker in workers]
            for worker in workers:
                worker.kill()
            assert codes == [0] * world, f"exit codes of the {world} workers: {codes}"
    finally:
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)


def _begin(work: Callable[..., None], rank: int, world: int, meeting: str, arguments: tuple) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    work(rank, world, *arguments)
    dist.destroy_process_group()
