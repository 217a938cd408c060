"""Counting what training costs: rows passed forward and backward through the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PassCounter:
    """Counts rows of every forward pass of a module, and of every backward pass through its output."""

    def __init__(self, module: nn.Module) -> None:
        self.forward = self.backward = 0
        # Outside of compiled graphs: a compiler would take the count for a constant, and compile anew at each pass.
        module.register_forward_hook(torch.compiler.disable(self._count))

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.forward += len(output)
        if output.requires_grad:
            output.register_hook(self._count_backward)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward += len(gradient)

    def add(self, forward: int, backward: int) -> None:
        """Count rows that were passed out of this counter's sight."""
        self.forward += forward
        self.backward += backward

    def seen(self) -> tuple[int, int]:
        """Rows forward and backward since the last `take`."""
        return self.forward, self.backward

    def set(self, forward: int, backward: int) -> None:
        """Go on counting from here."""
        self.forward, self.backward = forward, backward

    def take(self) -> tuple[int, int]:
        """Rows forward and backward since the last call."""
        counted = self.seen()
        self.set(0, 0)
        return counted
