"""A training step's forward and backward pass as CUDA graphs: a thousand small kernels that are launched together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from acr_ray.training.graphed import Captures, capturing, recorded, static
from acr_ray.training.passes import PassCounter

MOST_SIZES = 2  # batch sizes with graphs of their own: a run's steps, and an epoch's last


@dataclass(frozen=True)
class _Captured:
    """Both passes of one batch size, and the memory that they read and write.

    Attributes:
        parameters: that get a gradient.
        gradients: of each; a backward pass overwrites them.
    """

    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    inputs: Tensor
    logits: Tensor
    of_logits: Tensor
    parameters: list[nn.Parameter]
    gradients: list[Tensor]


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
        self._captured = Captures[_Captured]("steps", MOST_SIZES)
        self._anchor: Tensor | None = None

    def step(self) -> nn.Module:
        """Return what a step's loss is to call in the network's place: its first call replays, others pass as ever."""
        return _Once(self)

    def first(self, x: Tensor) -> Tensor:
        """Logits of a step's first batch ``(B, C, H, W)``, float32 ``(B, K)``; their gradient replays, too."""
        captured = None
        if torch.is_grad_enabled() and not x.requires_grad:
            captured = self._captured.of(tuple(x.shape), lambda: self._capture(x))
        if captured is None:
            return self.plain(x)
        if self._anchor is None:
            self._anchor = torch.zeros((), device=x.device, requires_grad=True)
        self._passes.add(len(x), len(x))
        found: Tensor = _Replay.apply(x, self._anchor, captured)
        return found

    def plain(self, x: Tensor) -> Tensor:
        """The same without a graph."""
        found: Tensor = self._network(x)
        return found

    def _capture(self, x: Tensor) -> _Captured:
        parameters = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
        inputs = static(x)
        statistics = [value.clone() for value in self._network.buffers()]

        def passed() -> tuple[Tensor, list[Tensor]]:
            logits = self._network(inputs)
            return logits, _gradients(logits, parameters, torch.zeros_like(logits))

        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        try:
            with capturing(self._passes, passed):
                with recorded(forward):
                    logits = self._network(inputs)
                of_logits = torch.zeros_like(logits)
                with recorded(backward, forward.pool()):
                    gradients = _gradients(logits, parameters, of_logits)
        finally:
            # The passes before the capture have moved running statistics; a run without graphs would not have.
            with torch.no_grad():
                for value, before in zip(self._network.buffers(), statistics, strict=True):
                    value.copy_(before)
        return _Captured(forward, backward, inputs, logits.detach(), of_logits, parameters, gradients)


def _gradients(logits: Tensor, parameters: list[nn.Parameter], of_logits: Tensor) -> list[Tensor]:
    """A gradient for each parameter, in its memory order, as autograd leaves it there."""
    found = torch.autograd.grad(logits, parameters, of_logits, allow_unused=True, materialize_grads=True)
    return [
        gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
        for gradient, parameter in zip(found, parameters, strict=True)
    ]


class _Replay(torch.autograd.Function):
    """Both replays; the parameters get their gradients directly, which spares autograd hundreds of small steps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, captured: _Captured) -> Tensor:
        ctx.captured = captured
        captured.inputs.copy_(x)
        captured.forward.replay()
        # Its own memory: what keeps logits for longer than a step must not see the next one's.
        return captured.logits.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        captured = ctx.captured
        captured.of_logits.copy_(gradient)
        captured.backward.replay()
        for parameter, found in zip(captured.parameters, captured.gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = found
            else:  # of another pass of this step, which autograd has written
                parameter.grad = parameter.grad + found
        return None, None, None


class GraphedForward(nn.Module):
    """A network whose passes in evaluation mode and without gradients are replays, for the first sizes that it meets.

    For p_A estimates: thousands of passes of one size between two epochs.

    Args:
        network, passes: of `GraphedPasses`; other passes go through the network as ever.
    """

    def __init__(self, network: nn.Module, passes: PassCounter) -> None:
        super().__init__()
        self.network, self._passes = network, passes
        self._captured = Captures[tuple[torch.cuda.CUDAGraph, Tensor, Tensor]]("p_A estimates", MOST_SIZES)

    def forward(self, x: Tensor) -> Tensor:
        captured = None
        if not torch.is_grad_enabled() and not self.network.training:
            captured = self._captured.of(tuple(x.shape), lambda: self._capture(x))
        if captured is None:
            found: Tensor = self.network(x)
            return found
        graph, inputs, logits = captured
        inputs.copy_(x)
        graph.replay()
        self._passes.add(len(x), 0)
        return logits.clone()

    def _capture(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        inputs, graph = static(x), torch.cuda.CUDAGraph()
        with capturing(self._passes, lambda: self.network(inputs)), recorded(graph):
            logits = self.network(inputs)
        return graph, inputs, logits


class _Once(nn.Module):
    def __init__(self, passes: GraphedPasses) -> None:
        super().__init__()
        self._passes, self._used = passes, False

    def forward(self, x: Tensor) -> Tensor:
        if self._used:
            return self._passes.plain(x)
        self._used = True
        return self._passes.first(x)
