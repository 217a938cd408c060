"""Weights as safetensors, in both directions: names, shapes and types are checked; nothing in a file is ever run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from acr_ray.settings import UserError

PICKLE_STARTS = (b"\x80", b"PK\x03\x04", b"\x1f\x8b", b"(", b"c")
TAR_MAGIC = slice(257, 262)


def state_bytes(model: nn.Module) -> bytes:
    """All parameters and buffers, in their own types, as a safetensors file; equal states give equal bytes."""
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()})


def load_state(model: nn.Module, content: bytes, source: str) -> None:
    """Put the state of `state_bytes` into `model`, in place, wherever it lies.

    Args:
        model: of the same architecture.
        content: a safetensors file.
        source: its name, for the message.

    Raises:
        UserError: a pickle, damaged, or names, shapes or types that are not the model's; the model is unchanged.
    """
    found = read_tensors(content, source)
    check_tensors(found, model.state_dict(), source)
    model.load_state_dict(found, strict=True)


def read_tensors(content: bytes, source: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises UserError where it is something else, or damaged."""
    # A safetensors file is 8 bytes of length and then JSON, whatever those 8 bytes look like.
    if content[8:9] != b"{":
        if content.startswith(PICKLE_STARTS) or content[TAR_MAGIC] == b"ustar":
            raise UserError(f"{source}: is a pickle; refused, not run (allowed: safetensors)")
        raise UserError(f"{source}: not a safetensors file ({len(content)} bytes)")
    _check_length(content, source)
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{source}: damaged safetensors file ({error})") from None


def check_tensors(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], source: str) -> None:
    """Raises UserError naming the first tensor that is missing, unknown, of another shape or of another type."""
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(f"{source}: tensor {name} of the architecture is missing")
        here = found[name]
        if here.shape != tensor.shape:
            raise UserError(f"{source}: {name} has shape {tuple(here.shape)}; expected {tuple(tensor.shape)}")
        if here.dtype != tensor.dtype:
            raise UserError(f"{source}: {name} has type {here.dtype}; expected {tensor.dtype}")
    for name in found:
        if name not in expected:
            raise UserError(f"{source}: tensor {name} is not in the architecture")


def _check_length(content: bytes, source: str) -> None:
    """A torn file deserves its own words; whatever else is wrong is left to safetensors."""
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        header: Any = json.loads(content[8:start]) if start <= len(content) else None
        end = start + max((t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"), default=0)
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError):
        end = start
    if isinstance(end, int) and end > len(content):
        raise UserError(f"{source}: truncated: {len(content)} bytes of at least {end}")
