"""Everything that a run needs to resume as if it had never stopped, as files without pickles."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch
from torch import Tensor, nn

from acr_ray.data.sampling import Population
from acr_ray.settings import digest

SCHEMA = 2
MODEL, OPTIMIZER, SAMPLES, STATE = "model.safetensors", "optimizer.safetensors", "samples.safetensors", "state.json"


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is missing, cut short or changed; names it."""


@dataclass
class Partial:
    """An epoch that has begun.

    Attributes:
        step: optimizer steps done.
        record: what the epoch's record says already (its learning rate, what was discarded and reweighed).
        sums: each worker's running sums, counters of passes last: ``(world, …)``.
        names: what the method logs, as in the sums.
        seconds: spent on the epoch so far.
    """

    step: int
    record: dict[str, Any]
    sums: list[list[float]]
    names: list[str]
    seconds: float


@dataclass
class Progress:
    """How far a run is and what it has decided about its samples.

    Attributes:
        epoch: epochs done.
        population: the samples still trained on and their weights; None before E_t.
        p_a: p_A snapshots by name (``discard``, ``reweigh``): label counts of each training sample, -1 if not drawn.
        history: one record for each epoch done, as written to metrics.jsonl.
        partial: how far the epoch after those is; None: not begun.
    """

    epoch: int = 0
    population: Population | None = None
    p_a: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    partial: Partial | None = None

    @property
    def step(self) -> int:
        """Optimizer steps done in the epoch that has begun."""
        return self.partial.step if self.partial else 0


def momentum(module: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """SGD's momentum buffers by parameter name; parameters that have none yet are absent."""
    buffers = {name: optimizer.state[p].get("momentum_buffer") for name, p in module.named_parameters()}
    return {name: buffer.contiguous() for name, buffer in buffers.items() if buffer is not None}


def save_state(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.SGD,
    progress: Progress,
    identity: str,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write a run's state into an empty local folder; ``identity`` is the run's settings hash.

    ``state.json`` holds the hash and length of the other files and of itself, so damage is noticed.
    """
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
    state |= {"partial": asdict(progress.partial) if progress.partial else None}
    state |= {"scaler": scaler.state_dict() if scaler else {}}
    state["files"] = {name: _describe(folder / name) for name in (MODEL, OPTIMIZER, SAMPLES)}
    state = json.loads(json.dumps(state))  # as it will be read: keys are text, tuples lists
    (folder / STATE).write_text(json.dumps(state | {"sha256": digest(state)}))


def read_state(text: str, source: str) -> dict[str, Any]:
    """``state.json`` as values. Raises DamagedCheckpoint if it is not what was written."""
    try:
        state = json.loads(text)
        written = state.pop("sha256", None)
        if written != digest(state):
            raise DamagedCheckpoint(f"{source}: its content does not have the SHA-256 that it names")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        if isinstance(error, DamagedCheckpoint):
            raise
        raise DamagedCheckpoint(f"{source}: not readable ({error})") from None
    return state


def check_files(folder: Path, state: dict[str, Any]) -> None:
    """Raise DamagedCheckpoint if a file beside ``state.json`` is not the one it describes."""
    files = state.get("files")
    # Only these are read: a state file does not choose what is opened.
    if not isinstance(files, dict) or set(files) != {MODEL, OPTIMIZER, SAMPLES}:
        raise DamagedCheckpoint(f"{folder}: its {STATE} describes other files than a checkpoint has")
    for name, written in files.items():
        if not (folder / name).is_file():
            raise DamagedCheckpoint(f"{folder / name}: missing")
        described = _describe(folder / name)
        if isinstance(written, dict) and described["bytes"] != written.get("bytes"):
            sizes = f"has {described['bytes']} bytes, {written.get('bytes')} were written"
            raise DamagedCheckpoint(f"{folder / name}: {sizes}")
        if described != written:
            raise DamagedCheckpoint(f"{folder / name}: its SHA-256 is not that of what was written")


def load_state(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.SGD,
    identity: str,
    scaler: torch.amp.GradScaler | None = None,
) -> Progress:
    """Put a saved state back.

    Raises:
        DamagedCheckpoint: a file is not what was written; nothing has been changed then.
        ValueError: it belongs to other settings or another version.
    """
    state = read_state((folder / STATE).read_text(), str(folder / STATE))
    if state["schema_version"] != SCHEMA or state["identity"] != identity:
        raise ValueError(f"{folder}: the checkpoint belongs to another run (or another version of acr_ray)")
    check_files(folder, state)
    module.load_state_dict(safe_torch.load_file(folder / MODEL), strict=True)
    buffers = safe_torch.load_file(folder / OPTIMIZER)
    for name, parameter in module.named_parameters():
        if name in buffers:
            # In the parameter's own memory order, as the uninterrupted run has it: kernels may depend on it.
            buffer = torch.empty_like(parameter).copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    if scaler is not None and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    samples = safe_numpy.load_file(folder / SAMPLES)
    population = Population(samples["kept"], samples.get("weights")) if "kept" in samples else None
    p_a = {name.removeprefix("p_a."): counts for name, counts in samples.items() if name.startswith("p_a.")}
    partial = Partial(**state["partial"]) if state["partial"] else None
    return Progress(state["epoch"], population, p_a, state["history"], partial)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": path.stat().st_size}
