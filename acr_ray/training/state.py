"""Everything that a run needs to go on as if it had never stopped, as files without pickles."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch
from torch import Tensor, nn

from acr_ray.data.sampling import Population

SCHEMA = 1
MODEL, OPTIMIZER, SAMPLES, STATE = "model.safetensors", "optimizer.safetensors", "samples.safetensors", "state.json"


@dataclass
class Progress:
    """How far a run is and what it has decided about its samples.

    Attributes:
        epoch: epochs done.
        population: the samples still trained on and their weights; None before E_t.
        p_a: p_A snapshots by name (``discard``, ``reweigh``): label counts of each training sample, -1 where not drawn.
        history: one record for each epoch done, as written to metrics.jsonl.
    """

    epoch: int = 0
    population: Population | None = None
    p_a: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def momentum(module: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """SGD's momentum buffers by parameter name; parameters that have none yet are absent."""
    found = {name: optimizer.state[p].get("momentum_buffer") for name, p in module.named_parameters()}
    return {name: buffer.contiguous() for name, buffer in found.items() if buffer is not None}


def save_state(folder: Path, module: nn.Module, optimizer: torch.optim.SGD, progress: Progress, identity: str) -> None:
    """Write a run's state into an empty local folder; ``identity`` is the run's settings hash."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    safe_torch.save_file(tensors, folder / MODEL)
    safe_torch.save_file(momentum(module, optimizer), folder / OPTIMIZER)
    samples = {f"p_a.{name}": counts for name, counts in progress.p_a.items()}
    if progress.population is not None:
        samples["kept"] = progress.population.kept
        if progress.population.weights is not None:
            samples["weights"] = progress.population.weights
    safe_numpy.save_file({k: np.ascontiguousarray(v) for k, v in samples.items()}, folder / SAMPLES)
    state = {"schema_version": SCHEMA, "identity": identity, "epoch": progress.epoch, "history": progress.history}
    (folder / STATE).write_text(json.dumps(state))


def load_state(folder: Path, module: nn.Module, optimizer: torch.optim.SGD, identity: str) -> Progress:
    """Put a saved state back. Raises ValueError where it belongs to other settings or a newer version."""
    state = json.loads((folder / STATE).read_text())
    if state["schema_version"] != SCHEMA or state["identity"] != identity:
        raise ValueError(f"{folder}: the checkpoint belongs to another run (or another version of acr_ray)")
    module.load_state_dict(safe_torch.load_file(folder / MODEL), strict=True)
    buffers = safe_torch.load_file(folder / OPTIMIZER)
    for name, parameter in module.named_parameters():
        if name in buffers:
            # In the parameter's own memory order, as the uninterrupted run has it: kernels may depend on it.
            buffer = torch.empty_like(parameter).copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    samples = safe_numpy.load_file(folder / SAMPLES)
    population = Population(samples["kept"], samples.get("weights")) if "kept" in samples else None
    p_a = {name.removeprefix("p_a."): counts for name, counts in samples.items() if name.startswith("p_a.")}
    return Progress(state["epoch"], population, p_a, state["history"])
