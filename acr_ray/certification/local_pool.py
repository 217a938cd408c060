"""One sampler in this process, behind what the coordinator knows of samplers. No Ray."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from acr_ray.certification.pool import PoolEvent, SampleRequest, SamplerHandle, SamplerReady, TaskDone
from acr_ray.certification.sampler import Arithmetic, Sampler
from acr_ray.models import ModelCard
from acr_ray.telemetry.logs import logger


@contextmanager
def drawing_here() -> Iterator[None]:
    """Let samplers work in this process for a while, then give it its threads and its log back.

    A `Sampler` computes with one torch thread and `acr_ray.smoothing.arithmetic.use_float32`, so that its counts are
    those of any actor.
    """
    threads, log, backends = torch.get_num_threads(), logger().logger, torch.backends
    level = log.level
    before = [(where, name, getattr(where, name)) for where, name in _choices(backends)]
    try:
        log.setLevel(logging.WARNING)  # this process is the user's terminal, no worker's log
        yield
    finally:
        torch.set_num_threads(threads)
        log.setLevel(level)
        for where, name, value in before:
            setattr(where, name, value)


def _choices(backends: Any) -> list[tuple[Any, str]]:
    """What `acr_ray.smoothing.arithmetic.use_float32` sets."""
    cudnn = backends.cudnn
    precisions = [(backends.cuda.matmul, "fp32_precision"), (cudnn.conv, "fp32_precision")]
    return [*precisions, (cudnn, "benchmark"), (cudnn, "deterministic")]


class LocalSamplerPool:
    """`SamplerPool` of this process: a task is drawn while it is waited for. Use it inside `drawing_here`.

    Args:
        card, state, sigma, seed, arithmetic, run: of `Sampler`.
    """

    def __init__(
        self,
        card: ModelCard,
        state: bytes | nn.Module,
        sigma: float,
        seed: int,
        arithmetic: Arithmetic,
        run: str = "",
    ) -> None:
        self._arguments = (card, state, sigma, seed, arithmetic, run)
        self._samplers: dict[SamplerHandle, Sampler] = {}
        self._ready: deque[SamplerReady] = deque()
        self._tasks: deque[tuple[SamplerHandle, int, Sequence[SampleRequest]]] = deque()

    def start(self) -> SamplerHandle:
        handle = len(self._samplers)
        self._samplers[handle] = sampler = Sampler(*self._arguments)
        # Raises if this machine lacks what drawing needs.
        self._ready.append(SamplerReady(handle, sampler.machine()))
        return handle

    def draw(self, sampler: SamplerHandle, task_id: int, requests: Sequence[SampleRequest]) -> None:
        self._tasks.append((sampler, task_id, requests))

    def wait(self, seconds: float) -> list[PoolEvent]:
        if self._ready:
            return [self._ready.popleft()]
        if self._tasks:
            handle, task_id, requests = self._tasks.popleft()
            return [TaskDone(handle, task_id, self._samplers[handle].draw(requests))]
        time.sleep(min(seconds, 0.2))  # only while the storage fails is there nothing to do
        return []

    def release(self, sampler: SamplerHandle) -> None:
        self._tasks = deque(task for task in self._tasks if task[0] != sampler)
