"""Passes in lower precision behind float32 inputs and logits, and gradients that survive it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from acr_ray.smoothing.arithmetic import LOWER
from acr_ray.training.narrow import packed_once

CONVERTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Autocast(nn.Module):
    """A network whose passes run under autocast; logits come out in float32, so losses are computed in it.

    It holds the network without registering it a second time anywhere: its ``state_dict`` is never used.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.network, self.dtype, self.kind = network, dtype, torch.device(device).type

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.kind, self.dtype):
            return self.network(x).float()


@contextmanager
def lowered_once(network: nn.Module) -> Iterator[None]:
    """Weights of an `in_precision` network in that precision for a while, in which they neither learn nor change.

    Autocast remembers weights only where they learn, and only within a pass: each pass of an attack would convert them
    all again, a fifth of a small network's kernels. Here they stand in for the float32 ones, with the same numbers.
    Where blocks are compiled the conversion is a part of other kernels; but narrow convolutions pack their weights.
    """
    if not isinstance(network, Autocast):
        yield
        return
    modules = list(network.network.modules())
    if any(module._compiled_call_impl is not None for module in modules):
        with packed_once(modules, network.dtype):
            yield
        return
    own: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for module in modules:
            # What autocast converts; batch norm keeps float32. The float32 parameters themselves are left alone: DDP
            # watches them.
            for name, value in module._parameters.items() if isinstance(module, CONVERTED) else ():
                if value is not None:
                    own.append((module, name, value))
        for module, name, value in own:
            module._parameters[name] = nn.Parameter(value.detach().to(network.dtype), requires_grad=False)
        yield
    finally:
        for module, name, value in own:
            module._parameters[name] = value


def in_precision(network: nn.Module, precision: str, device: str) -> nn.Module:
    """The network with its passes in this precision; in float32 and tf32 the network itself."""
    return Autocast(network, LOWER[precision], device) if precision in LOWER else network


def gradient_scaler(precision: str, device: str) -> torch.amp.GradScaler:
    """Scales the loss in float16, where small gradients vanish; in other precisions it passes everything through."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")
