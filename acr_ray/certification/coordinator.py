"""Fans the drawing out over actors, keeps bounded work in flight, and writes what comes back to the ledger."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError

from acr_ray.certification.ledger import Ledger
from acr_ray.certification.sampler import Draw, Sampler
from acr_ray.certification.tasks import Span, TaskCutter, pending
from acr_ray.data import ImageSet
from acr_ray.models import ModelCard
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.hardware import WORKER_ENVIRONMENT

AHEAD = 2  # tasks sent to an actor before its first result is back: one at work, one waiting
TASK_SECONDS = 1.0  # what a task should take: short enough to lose little with an actor, long enough to cost nothing


class SamplersLost(RuntimeError):
    """Actors die again and again without a result."""


@dataclass(frozen=True)
class Actors:
    """How many sampler actors, and what each is given."""

    count: int
    gpus: float = 0
    cpus: float = 1

    @classmethod
    def fitting(cls, count: int | None, gpus: float) -> Actors:
        """As many as asked for, or as the cluster holds. Raises UserError where they would never start."""
        total = ray.cluster_resources()
        # A GPU actor waits for its device most of the time; asking for a whole CPU each would leave GPUs unused.
        actors = cls(1, gpus, 0.1 if gpus else 1)
        rooms = [total.get(kind, 0) / share for kind, share in (("CPU", actors.cpus), ("GPU", gpus)) if share]
        fit = int(min(rooms))
        if fit < 1 or (count is not None and count > fit):
            raise UserError(
                f"--actors {count or 'all'}: the cluster has room for {fit} (each takes {actors.cpus:g} CPU"
                + (f" and {gpus:g} GPU)" if gpus else ")")
            )
        return cls(count or fit, actors.gpus, actors.cpus)


@dataclass(frozen=True)
class Standing:
    """How far a run is: for progress lines."""

    images_done: int
    images: int
    evaluations: int
    evaluations_planned: int
    rate: float  # evaluations a second since the first result, all actors; 0 where that is not known yet

    @property
    def seconds_left(self) -> float:
        return (self.evaluations_planned - self.evaluations) / self.rate if self.rate > 0 else float("inf")


class Coordinator:
    """Draws all that the ledger does not have yet.

    Actors that die are replaced and their tasks sent again: a span's counts depend on its seed alone, so nothing
    but time is lost. What has come back is in the ledger before anything else is asked for.
    """

    def __init__(
        self, ledger: Ledger, images: ImageSet, settings: CertifySettings, card: ModelCard, state: bytes, actors: Actors
    ) -> None:
        self._ledger, self._images, self._settings, self._actors = ledger, images, settings, actors
        # The weights travel once into the object store; actors on other nodes need no access to the checkpoint.
        self._arguments = (card, ray.put(state), settings.sigma, settings.seed, settings.device)
        environment = {"env_vars": WORKER_ENVIRONMENT}
        self._actor_class = ray.remote(num_cpus=actors.cpus, num_gpus=actors.gpus, runtime_env=environment)(Sampler)
        self.handles: list[ray.actor.ActorHandle] = []
        self._in_flight: dict[ray.ObjectRef, tuple[ray.actor.ActorHandle, list[Span]]] = {}
        self._again: deque[list[Span]] = deque()
        self._task_size = 4 * settings.block
        self._fruitless = 0
        self._complete = {i for i in range(len(images)) if ledger.complete(i)}

    def run(self, on_progress: Callable[[Standing], None] = lambda standing: None) -> None:
        """Draw until every image is complete.

        Raises:
            SamplersLost: more than three times as many actors as there should be died in a row without a result.
            RayTaskError: the model itself failed, e.g. gave NaN.
        """
        phases = tuple(self._ledger.phases.values())
        cutter = TaskCutter(pending(len(self._images), phases, self._ledger.done))
        planned = len(self._images) * sum(phase.blocks * phase.block for phase in phases)
        before, started = self._ledger.evaluations, None
        self.handles = [self._start() for _ in range(self._actors.count)]
        try:
            while True:
                self._send(cutter)
                if not self._in_flight:
                    return
                self._receive()
                drawn = self._ledger.evaluations
                if started is None and drawn > before:  # counted from the first result: actors take a while to start
                    before, started = drawn, time.monotonic()
                rate = (drawn - before) / (time.monotonic() - started) if drawn > before else 0.0
                on_progress(Standing(len(self._complete), len(self._images), drawn, planned, rate))
        finally:
            for handle in self.handles:
                ray.kill(handle)

    def _start(self) -> ray.actor.ActorHandle:
        return self._actor_class.remote(*self._arguments)

    def _send(self, cutter: TaskCutter) -> None:
        load = {handle: 0 for handle in self.handles}
        for handle, _ in self._in_flight.values():
            if handle in load:
                load[handle] += 1
        for level in range(AHEAD):
            for handle in self.handles:
                if load[handle] <= level:
                    spans = self._again.popleft() if self._again else cutter.take(self._task_size)
                    if not spans:
                        return
                    load[handle] += 1
                    self._in_flight[handle.draw.remote(self._draws(spans))] = (handle, spans)

    def _draws(self, spans: list[Span]) -> list[Draw]:
        wanted = sorted({span.image for span in spans})
        pixels = dict(zip(wanted, self._images.load(wanted, None).numpy(), strict=True))
        return [
            Draw(self._images.names[s.image], pixels[s.image], self._ledger.phases[s.phase], s.first, s.stop)
            for s in spans
        ]

    def _receive(self) -> None:
        ready, _ = ray.wait(list(self._in_flight), num_returns=1, timeout=1.0)
        if ready:
            # Whatever else has come in meanwhile goes into the same file of the ledger.
            ready, _ = ray.wait(list(self._in_flight), num_returns=len(self._in_flight), timeout=0)
        results: list[tuple[Span, NDArray[np.int64], float]] = []
        for reference in ready:
            handle, spans = self._in_flight.pop(reference)
            try:
                answers = ray.get(reference)
            except RayTaskError:
                raise
            except RayActorError as error:
                self._replace(handle, spans, error)
                continue
            self._fruitless = 0
            results += [(span, *answer) for span, answer in zip(spans, answers, strict=True)]
            self._adapt(spans, sum(seconds for _, seconds in answers))
        if results:
            self._ledger.append(results)
            self._complete |= {span.image for span, *_ in results if self._ledger.complete(span.image)}

    def _replace(self, handle: ray.actor.ActorHandle, spans: list[Span], error: RayActorError) -> None:
        self._again.append(spans)
        if handle not in self.handles:  # its other task has already brought the news
            return
        self._fruitless += 1
        if self._fruitless > 3 * self._actors.count:
            raise SamplersLost(f"sampler actors die without a result ({' '.join(str(error).split())[:300]})")
        self.handles[self.handles.index(handle)] = self._start()

    def _adapt(self, spans: list[Span], seconds: float) -> None:
        """Size the next tasks by the speed seen; counts don't depend on it."""
        evaluations = sum(span.blocks * self._ledger.phases[span.phase].block for span in spans)
        target = evaluations * TASK_SECONDS / max(seconds, 1e-6)
        # Half way there each time: the first task of an actor is slow, and one odd task should not matter.
        self._task_size = max(1, int((self._task_size + min(target, 4 * self._task_size)) / 2))
