"""Passes in lower precision behind float32 inputs and logits, and gradients that survive it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOWER = {"bfloat16": torch.bfloat16, "float16": torch.float16}


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


def in_precision(network: nn.Module, precision: str, device: str) -> nn.Module:
    """The network with its passes in this precision; in float32 and tf32 the network itself."""
    return Autocast(network, LOWER[precision], device) if precision in LOWER else network


def gradient_scaler(precision: str, device: str) -> torch.amp.GradScaler:
    """Scales the loss in float16, where small gradients vanish; in other precisions it passes everything through."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")
