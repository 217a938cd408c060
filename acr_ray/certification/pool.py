"""The samplers as the coordinator sees them: what it sends, what comes back, what a pool promises. No Ray, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from acr_ray.smoothing.plan import Phase

SamplerHandle = Any  # one sampler, by whatever the pool knows it


@dataclass(frozen=True)
class SampleRequest:
    """Blocks of one phase of some images, as a sampler needs them: names, and the images where they are new to it."""

    names: tuple[str, ...]
    pixels: NDArray[np.float32] | None  # (images, C, H, W) in [0, 1]; None: the sampler keeps all of them
    phase: Phase
    first: int
    stop: int


class SampleResult(NamedTuple):
    """What a request gave: class counts, int64 ``(images, num_classes)``, and the seconds that drawing took."""

    counts: NDArray[np.int64]
    seconds: float


@dataclass(frozen=True, order=True)
class Machine:
    """What draws.

    Attributes:
        device: the GPU's name, or the processor's and which of torch's kernels it takes.
        torch: its version.
    """

    device: str
    torch: str

    def __str__(self) -> str:
        return f"{self.device}, torch {self.torch}"


def machines_as_json(machines: Iterable[Machine]) -> list[dict[str, str]]:
    """Return machines as plain values, each once, in order."""
    return [{"device": one.device, "torch": one.torch} for one in sorted(set(machines))]


@dataclass(frozen=True)
class SamplerReady:
    """A sampler has started and can draw.

    Attributes:
        machine: what it draws with; None if it does not say.
    """

    sampler: SamplerHandle
    machine: Machine | None = None


@dataclass(frozen=True)
class TaskDone:
    """A task came back.

    Attributes:
        task_id: as it was sent.
        results: one for each request of the task, in their order.
    """

    sampler: SamplerHandle
    task_id: int
    results: Sequence[SampleResult]


@dataclass(frozen=True)
class SamplerLost:
    """A sampler is gone, and whatever it was drawing with it."""

    sampler: SamplerHandle
    reason: str


PoolEvent = SamplerReady | TaskDone | SamplerLost


class SamplerPool(Protocol):
    """Samplers at a distance. The coordinator knows no more of Ray than this."""

    def start(self) -> SamplerHandle:
        """Ask for one more sampler; it may take a while, or until a node comes, before it is ready."""

    def draw(self, sampler: SamplerHandle, task_id: int, requests: Sequence[SampleRequest]) -> None:
        """Send a task; `wait` reports it done.

        Args:
            task_id: no other task of this pool has it.
        """

    def wait(self, seconds: float) -> list[PoolEvent]:
        """What has happened, waiting at most so long for the first event."""

    def release(self, sampler: SamplerHandle) -> None:
        """End a sampler and give back what it holds. No more is heard of it."""
