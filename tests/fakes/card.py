"""A card that is not there: torch's fake tensors say ``cuda`` and refuse to meet what lies on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily


def on_card(build: Callable[[], nn.Module]) -> nn.Module:
    """A module whose parameters and buffers are fake and on the card; call it within `pretended_card`."""
    with unset_fake_temporarily():
        module = build()
    for inner in module.modules():
        for name, value in inner._parameters.items():
            if value is not None:
                inner._parameters[name] = nn.Parameter(like(value), requires_grad=value.requires_grad)
        for name, value in inner._buffers.items():
            if value is not None:
                inner._buffers[name] = like(value)
    return module


def like(value: torch.Tensor) -> torch.Tensor:
    """A fake tensor of this shape, type and memory order on the card."""
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")


def pretended_card() -> FakeTensorMode:
    """What is computed in here has shapes, types and devices, and no values."""
    return FakeTensorMode()
