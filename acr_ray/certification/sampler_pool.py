"""The samplers as Ray actors: started, given tasks, waited for, ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from torch import nn

from acr_ray.certification.pool import PoolEvent, SampleRequest, SamplerHandle, SamplerLost, SamplerReady, TaskDone
from acr_ray.certification.sampler import Arithmetic, Sampler
from acr_ray.models import ModelCard
from acr_ray.settings import UserError
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from acr_ray.smoothing.engine import BrokenModelError


@dataclass(frozen=True)
class Actors:
    """How many sampler actors, at least and at most, and what each is given."""

    low: int
    high: int
    gpus: float = 0
    cpus: float = 1

    @classmethod
    def fitting(cls, asked: tuple[int, int] | None, gpus: float) -> Actors:
        """As many as asked for, or as the cluster holds.

        Args:
            asked: least and most. The least must fit now; the others join as nodes come (an autoscaling cluster is
                asked for them). None: all that fit now.

        Raises:
            UserError: the least would never start.
        """
        total = ray.cluster_resources()
        # A GPU actor waits for its device most of the time; asking for a whole CPU each would leave GPUs unused.
        cpus = 0.1 if gpus else 1
        rooms = [total.get(kind, 0) / share for kind, share in (("CPU", cpus), ("GPU", gpus)) if share]
        fit = int(min(rooms) + 1e-9)
        low, high = asked or (max(fit, 1), max(fit, 1))
        if fit < low:
            shown = "all" if asked is None else f"{low}" if low == high else f"{low}:{high}"
            each = f"each takes {cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
            raise UserError(f"--actors {shown}: the cluster has room for {fit} ({each})")
        return cls(low, high, gpus, cpus)


def sampler_class(actors: Actors) -> Any:
    """`Sampler` as a Ray actor."""
    environment = {"env_vars": WORKER_ENVIRONMENT}
    return ray.remote(num_cpus=actors.cpus, num_gpus=actors.gpus, runtime_env=environment)(Sampler)


class RaySamplerPool:
    """`SamplerPool` on a Ray cluster.

    Args:
        card, state, sigma, seed, arithmetic, run: of `Sampler`.
        actors: what each is given.
    """

    def __init__(
        self,
        card: ModelCard,
        state: bytes | nn.Module,
        sigma: float,
        seed: int,
        arithmetic: Arithmetic,
        actors: Actors,
        run: str = "",
    ) -> None:
        # Weights, or a model of this very process, and an int8 network in the arithmetic travel once into the object
        # store; actors need no checkpoint.
        self._arguments = (card, ray.put(state), sigma, seed, ray.put(arithmetic), run)
        self._class = sampler_class(actors)
        # What is waited for, and the sampler and task id it belongs to; no task id: the sampler's start.
        self._pending: dict[ray.ObjectRef, tuple[SamplerHandle, int | None]] = {}

    def start(self) -> SamplerHandle:
        sampler = self._class.remote(*self._arguments)
        self._expect_ready(sampler)
        return sampler

    def _expect_ready(self, sampler: SamplerHandle) -> None:
        self._pending[sampler.machine.remote()] = (sampler, None)

    def draw(self, sampler: SamplerHandle, task_id: int, requests: Sequence[SampleRequest]) -> None:
        self._pending[sampler.draw.remote(requests)] = (sampler, task_id)

    def wait(self, seconds: float) -> list[PoolEvent]:
        if not self._pending:
            time.sleep(min(seconds, 0.2))
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=seconds)
        if ready:
            # Whatever else has come in meanwhile is taken along.
            ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return [self._event(reference, *self._pending.pop(reference)) for reference in ready]

    def release(self, sampler: SamplerHandle) -> None:
        self._forget(sampler)
        ray.kill(sampler)

    def _forget(self, sampler: SamplerHandle) -> None:
        self._pending = {ref: owner for ref, owner in self._pending.items() if owner[0] != sampler}

    @staticmethod
    def _event(reference: ray.ObjectRef, sampler: SamplerHandle, task_id: int | None) -> PoolEvent:
        try:
            answer = ray.get(reference)
        except RayTaskError as error:  # the model's own failure would come back with any sampler
            raise own_error(error) from None
        except (RayActorError, ObjectLostError) as error:  # lost: the answer's node went before it was fetched
            return SamplerLost(sampler, " ".join(str(error).split())[:300])
        return SamplerReady(sampler, answer) if task_id is None else TaskDone(sampler, task_id, answer)


def own_error(error: RayTaskError) -> Exception:
    """Return what a sampler raised, if it is one of our lines for the user; else Ray's account of it, a traceback."""
    return error.cause if isinstance(error.cause, (UserError, BrokenModelError)) else error
