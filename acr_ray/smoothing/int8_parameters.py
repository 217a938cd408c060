"""What makes an int8 network of a float32 one: whole weights, and the steps of all activations. One file, one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from acr_ray.settings import UserError
from acr_ray.settings.documents import check, check_version, parse_json

VERSION = 1
HEADER = "acr_ray"  # one entry: safetensors writes several in any order, and equal networks have equal bytes
MOST_HEADER, MOST_BYTES = 16 * 2**20, 2**31
TENSORS = {"weight": torch.int8, "scale": torch.float32, "bias": torch.float32}


class Steps(NamedTuple):
    """How an activation is written in 8 bits: its value is ``scale * (q - zero)``, q from 0 to 255."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Weights:
    """A convolution's weights, batch norm folded in: ``scale[c] * weight[c]``, and a bias.

    Attributes:
        weight: int8 ``(outputs, inputs / groups, height, width)``, from -127 to 127.
        scale: float32 ``(outputs,)``, > 0.
        bias: float32 ``(outputs,)``.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor


class _Steps(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    zero: Annotated[int, Field(ge=0, le=255)]


class _Header(BaseModel):
    model_config = ConfigDict(strict=True)

    schema_version: int
    activations: dict[str, _Steps]
    about: dict[str, Any]


@dataclass(frozen=True)
class Int8Parameters:
    """All that an int8 network has of its own; the rest is the float32 network's.

    Attributes:
        weights: of each convolution, by the name of its node in the network's graph.
        activations: of each activation that is kept in 8 bits, likewise.
        about: how they were found, JSON-like: ``model_sha256``, ``images``, ``sigma``, …
    """

    weights: Mapping[str, Weights]
    activations: Mapping[str, Steps]
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return a safetensors file; the same for the same network."""
        tensors = {
            f"{name}.{part}": getattr(weights, part).contiguous()
            for name, weights in self.weights.items()
            for part in TENSORS
        }
        activations = {name: steps._asdict() for name, steps in self.activations.items()}
        header = {"schema_version": VERSION, "activations": activations, "about": dict(self.about)}
        return save(tensors, {HEADER: json.dumps(header, sort_keys=True)})

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, as hexadecimal digits."""
        return sha256_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Int8Parameters:
        """Read a file of `to_bytes`. Nothing in it is ever run.

        Args:
            where: its name, for messages.

        Raises:
            UserError: it is another kind of file, damaged, or of a newer version.
        """
        size = int.from_bytes(content[:8], "little")
        try:
            if not 0 < size <= min(MOST_HEADER, len(content) - 8):
                raise ValueError("no header")
            told = json.loads(content[8 : 8 + size])["__metadata__"][HEADER]
            tensors = load(content)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
            raise UserError(f"{where}: no int8 network, or damaged ({' '.join(str(error).split())[:100]})") from None
        if not isinstance(told, str):
            raise UserError(f"{where}: no int8 network, or damaged")
        header = check(_Header, check_version(parse_json(told, where), where, VERSION), where)
        names = {name.rpartition(".")[0] for name in tensors}
        weights = {name: _weights(tensors, name, where) for name in sorted(names)}
        if len(tensors) != len(TENSORS) * len(weights):
            raise UserError(f"{where}: no int8 network, or damaged: tensors of unknown names")
        return cls(weights, {name: Steps(s.scale, s.zero) for name, s in header.activations.items()}, header.about)


def sha256_of(content: bytes) -> str:
    """Hash a file of `Int8Parameters.to_bytes`, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _weights(tensors: Mapping[str, Tensor], name: str, where: str) -> Weights:
    parts = {}
    for part, dtype in TENSORS.items():
        found = tensors.get(f"{name}.{part}")
        if found is None or found.dtype != dtype or found.dim() != (4 if part == "weight" else 1):
            raise UserError(f"{where}: no int8 network, or damaged: {name}.{part} is missing or of another kind")
        parts[part] = found
    weight, scale, bias = parts["weight"], parts["scale"], parts["bias"]
    if not len(weight) == len(scale) == len(bias) or not bool((scale > 0).all() & scale.isfinite().all()):
        raise UserError(f"{where}: no int8 network, or damaged: {name} does not fit together")
    if not bool(bias.isfinite().all()) or bool((weight == -128).any()):
        raise UserError(f"{where}: no int8 network, or damaged: {name} has values that none of ours has")
    return Weights(weight, scale, bias)
