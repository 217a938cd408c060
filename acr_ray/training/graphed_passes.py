"""A training step's forward and backward pass as CUDA graphs: a thousand small kernels that are launched together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from acr_ray.training.passes import PassCounter

MOST_SIZES = 2  # batch sizes with graphs of their own: a run's steps, and an epoch's last


class GraphedPasses:
    """Passes batches of the same size through a network that learns by replaying what was captured for the first.

    The graphs read weights and running statistics where they lie, and leave gradients in memory that each backward
    pass overwrites; so they serve the first pass of a step whose gradients are used before the next one.

    Args:
        network: in training mode and the run's precision, on a CUDA device, without layers that draw random numbers.
        passes: told of the rows that a replay passes.
    """

    def __init__(self, network: nn.Module, passes: PassCounter) -> None:
        self._network, self._passes = network, passes
        self._captured: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

    def step(self) -> nn.Module:
        """Return what a step's loss is to call in the network's place: its first call replays, others pass as ever."""
        return _Once(self)

    def first(self, x: Tensor) -> Tensor:
        """Logits of a step's first batch ``(B, C, H, W)``, float32 ``(B, K)``; their gradient replays, too."""
        shape = tuple(x.shape)
        if x.requires_grad or (shape not in self._captured and len(self._captured) == MOST_SIZES):
            return self.plain(x)
        if shape not in self._captured:
            self._captured[shape] = self._capture(x)
        self._passes.add(len(x))
        # Its own memory: what keeps logits for longer than a step must not see the next one's.
        return self._captured[shape](x).clone()

    def plain(self, x: Tensor) -> Tensor:
        """The same without a graph."""
        found: Tensor = self._network(x)
        return found

    def _capture(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        counted = self._passes.seen()
        statistics = {name: value.clone() for name, value in self._network.named_buffers()}
        # Weights that autocast has converted must not be remembered over a replay, in which they are others.
        remembers = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            captured: Callable[[Tensor], Tensor] = torch.cuda.make_graphed_callables(
                _Bare(self._network), (x.detach().clone(),), allow_unused_input=True
            )
        finally:
            torch.set_autocast_cache_enabled(remembers)
            self._passes.set(*counted)
        # The passes before the capture have moved running statistics, which a run without graphs would not have done.
        with torch.no_grad():
            for name, value in self._network.named_buffers():
                value.copy_(statistics[name])
        return captured


class _Bare(nn.Module):
    """A network without hooks of its own, which torch's graphs do not take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x)
        return found


class _Once(nn.Module):
    def __init__(self, passes: GraphedPasses) -> None:
        super().__init__()
        self._passes, self._used = passes, False

    def forward(self, x: Tensor) -> Tensor:
        if self._used:
            return self._passes.plain(x)
        self._used = True
        return self._passes.first(x)
