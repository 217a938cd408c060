"""The noise attack as one CUDA graph: thousands of small kernels that are launched together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from acr_ray.settings.recipe import AttackSettings
from acr_ray.telemetry.logs import logger
from acr_ray.training.attack import Attacked, attack_every_row
from acr_ray.training.passes import PassCounter

Found = TypeVar("Found")

WARM_UP = 3  # passes before the capture: kernels are chosen and compiled, memory is taken
MOST_SIZES = 4  # graphs kept: a run has one size of batch, and another for an epoch's last steps


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    labels: Tensor
    noise: Tensor
    attacked: Attacked


class GraphedAttack:
    """Attacks batches of the same size by replaying what was captured for the first of them.

    A ResNet-110's attack in three PGD steps is about 3,000 kernels of a few microseconds each; launched one by one
    they keep the host busier than the GPU. The graph reads the network's weights and statistics where they lie, so it
    goes along with what the optimizer and batch norm write there.

    Args:
        network: in the run's precision, on a CUDA device.
        settings: T, epsilon and norm.
        scale: of the loss, see `attack_noise`.
        passes: told of the rows that a replay passes.
    """

    def __init__(self, network: nn.Module, settings: AttackSettings, scale: float, passes: PassCounter) -> None:
        self._network, self._settings, self._scale, self._passes = network, settings, scale, passes
        self._captured = Captures[_Captured]("attacks", MOST_SIZES)

    def __call__(self, inputs: Tensor, labels: Tensor, noise: Tensor) -> Attacked:
        """Attack a batch; arguments as of `attack_noise`. What is returned is valid until the next call."""
        captured = self._captured.of((len(noise),), lambda: self._capture(inputs, labels, noise))
        if captured is None:
            return self._attack(inputs, labels, noise)
        captured.inputs.copy_(inputs)
        captured.labels.copy_(labels)
        captured.noise.copy_(noise)
        captured.graph.replay()
        rows = self._settings.steps * len(noise)
        self._passes.add(rows, rows)
        return captured.attacked

    def _attack(self, inputs: Tensor, labels: Tensor, noise: Tensor) -> Attacked:
        return attack_every_row(self._network, inputs, labels, noise, self._settings, scale=self._scale)

    def _capture(self, inputs: Tensor, labels: Tensor, noise: Tensor) -> _Captured:
        kept, graph = (static(inputs), static(labels), static(noise)), torch.cuda.CUDAGraph()
        with capturing(self._passes, lambda: self._attack(*kept)), recorded(graph):
            attacked = self._attack(*kept)
        return _Captured(graph, *kept, attacked)


def static(values: Tensor) -> Tensor:
    """Memory that a graph reads its inputs from, with these in it."""
    return values.detach().clone()


class Captures(Generic[Found]):
    """What was captured for the first sizes of batches; none once a capture has failed.

    Args:
        what: is captured, for the log.
        most: sizes.

    Attributes:
        kept: by size.
    """

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self.kept: dict[tuple[int, ...], Found] = {}

    def of(self, size: tuple[int, ...], capture: Callable[[], Found]) -> Found | None:
        """Return what is kept for a size, captured now if need be; None if these passes are to be launched one by one.

        A user's own network may read a value back, which a graph cannot do: a line in the log says so.
        """
        if size not in self.kept and len(self.kept) < self._most:
            try:
                self.kept[size] = capture()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._most = 0
                why = (str(error).splitlines() or [type(error).__name__])[0]
                logger(passes=self._what).warning("launched kernel by kernel, not as a CUDA graph: %s", why)
        return self.kept.get(size)


def recorded(graph: torch.cuda.CUDAGraph, pool: Any = None) -> AbstractContextManager[None]:
    """Record into a graph what is launched here; with another graph's ``pool`` it may use memory that one has left."""
    # Other threads, the loader's and NCCL's, go on talking to the device meanwhile.
    found: AbstractContextManager[None] = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
    return found


@contextlib.contextmanager
def capturing(passes: PassCounter, work: Callable[[], object]) -> Iterator[None]:
    """What holds while passes are captured: they are not counted, and autocast remembers nothing.

    Args:
        work: what is to be captured: done before, so that its kernels are chosen and compiled and have their memory.
    """
    counted = passes.seen()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # Weights that autocast has converted must not be remembered over a replay, in which they are others.
    remembers = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        yield
    finally:
        torch.set_autocast_cache_enabled(remembers)
        passes.set(*counted)
