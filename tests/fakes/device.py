"""A CPU that counts what would make the host wait for a GPU, and what a GPU should not be asked for."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal")
LARGE = 1000  # numbers: sums of an epoch may be kept in float64, images and activations not


class Pretended(TorchDispatchMode):
    """Everything inside is watched, backward passes included.

    Attributes:
        waits: how often a value was read on the host or a size depended on values, by the line of ours that did it.
        float64: lines of ours that made a large tensor of float64.
        mixed: lines of ours where one operation took two lower precisions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.float64: Counter[str] = Counter()
        self.mixed: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        tensors = [a for a in torch.utils._pytree.tree_leaves((args, kwargs or {})) if isinstance(a, torch.Tensor)]
        chosen_by_mask = name in ("index", "index_put", "index_put_") and any(
            t.dtype is torch.bool for t in torch.utils._pytree.tree_leaves(args[1]) if isinstance(t, torch.Tensor)
        )
        if name in WAITING or chosen_by_mask:
            self.waits[_line()] += 1
        if len({t.dtype for t in tensors if t.dtype in (torch.bfloat16, torch.float16)}) > 1:
            self.mixed[_line()] += 1
        result = func(*args, **(kwargs or {}))
        made = [t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
        if any(t.dtype is torch.float64 and t.numel() > LARGE for t in made):
            self.float64[_line()] += 1
        return result


def _line() -> str:
    ours = [f for f in traceback.extract_stack() if "/acr_ray/" in f.filename or "/tests/" in f.filename]
    ours = [f for f in ours if not f.filename.endswith("fakes/device.py")]
    return f"{ours[-1].filename.rsplit('/', 1)[-1]}:{ours[-1].lineno}" if ours else "?"
