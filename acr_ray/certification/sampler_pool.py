"""The samplers as Ray actors: started, handed work, waited for, replaced."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError, RayTaskError

from acr_ray.certification.sampler import Arithmetic, Sampler, SampleRequest
from acr_ray.models import ModelCard
from acr_ray.settings import UserError
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from acr_ray.smoothing.engine import BrokenModelError

SamplerHandle = Any  # one sampler
READY = "ready"


@dataclass(frozen=True)
class Lost:
    """What comes back in place of an answer: the sampler is gone."""

    why: str


class SamplerPool(Protocol):
    """Samplers at a distance. The coordinator knows no more of Ray than this."""

    def start(self) -> SamplerHandle:
        """Ask for one more sampler; it may take a while, or until a node comes, before it is ready."""

    def draw(self, hand: SamplerHandle, draws: list[SampleRequest]) -> None:
        """Send work; the answer comes out of `wait`."""

    def wait(self, seconds: float) -> list[tuple[SamplerHandle, list[SampleRequest] | str, Any]]:
        """What has come in, waiting at most so long: (sampler, the draws or `READY`, answers or `Lost`)."""

    def release(self, hand: SamplerHandle) -> None:
        """End a sampler and give back what it holds."""


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
        self, card: ModelCard, state: bytes, sigma: float, seed: int, arithmetic: Arithmetic, actors: Actors,
        run: str = "",
    ) -> None:  # fmt: skip
        # The weights travel once into the object store; actors on other nodes need no access to the checkpoint.
        self._arguments = (card, ray.put(state), sigma, seed, arithmetic, run)
        self._class = sampler_class(actors)
        self._expected: dict[ray.ObjectRef, tuple[Hashable, list[SampleRequest] | str]] = {}

    def start(self) -> SamplerHandle:
        hand = self._class.remote(*self._arguments)
        self._expected[hand.device_name.remote()] = (hand, READY)
        return hand

    def draw(self, hand: SamplerHandle, draws: list[SampleRequest]) -> None:
        self._expected[hand.draw.remote(draws)] = (hand, draws)

    def wait(self, seconds: float) -> list[tuple[SamplerHandle, list[SampleRequest] | str, Any]]:
        if not self._expected:
            time.sleep(min(seconds, 0.2))
            return []
        ready, _ = ray.wait(list(self._expected), num_returns=1, timeout=seconds)
        if ready:
            # Whatever else has come in meanwhile is taken along.
            ready, _ = ray.wait(list(self._expected), num_returns=len(self._expected), timeout=0)
        return [(*self._expected.pop(reference), self._answer(reference)) for reference in ready]

    def release(self, hand: SamplerHandle) -> None:
        self._expected = {ref: what for ref, what in self._expected.items() if what[0] != hand}
        ray.kill(hand)

    @staticmethod
    def _answer(reference: ray.ObjectRef) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:  # the model's own failure would come back with any sampler
            if isinstance(error.cause, (UserError, BrokenModelError)):
                raise error.cause from None
            raise
        except RayActorError as error:
            return Lost(" ".join(str(error).split())[:300])
        except ray.exceptions.ObjectLostError as error:  # the answer's node went before it was fetched
            return Lost(" ".join(str(error).split())[:300])
