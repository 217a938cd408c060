"""Who trains on what: one global sequence an epoch, cut into steps, shared out over the ranks.

Every rank draws the whole sequence and takes its share, so the samples of a step, and their views, are the same
whatever the number of workers. A loader batch of 256 inputs split in m chunks (the paper's epoch) is the same as
consecutive steps of 256/m inputs over this sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acr_ray.data.chance import hashed, to_unit
from acr_ray.settings import derive_seed


@dataclass(frozen=True)
class Population:
    """What is left of the training set, and how likely each of it is to be drawn.

    Attributes:
        kept: int64 (K,), K >= 1: item indices still in the training set.
        weights: float64 (K,), >= 0, finite, not all 0; None: all alike.

    Raises ValueError where that does not hold.
    """

    kept: np.ndarray
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", np.asarray(self.kept, dtype=np.int64))
        if self.kept.ndim != 1 or not len(self.kept):
            raise ValueError(f"kept: shape {self.kept.shape}; allowed: (K,) with K >= 1")
        if self.weights is None:
            return
        object.__setattr__(self, "weights", np.asarray(self.weights, dtype=np.float64))
        if self.weights.shape != self.kept.shape:
            raise ValueError(f"weights: shape {self.weights.shape}; allowed: {self.kept.shape}")
        total = self.weights.sum()
        if not (np.isfinite(total) and total > 0 and (self.weights >= 0).all()):
            raise ValueError("weights: must be finite, >= 0 and not all 0")


def draw_epoch(seed: int, epoch: int, size: int, population: Population | None = None) -> np.ndarray:
    """The epoch's global sequence: int64 (size,) item indices, a function of the arguments only.

    Args:
        seed: the run's seed.
        epoch: 0, 1, …
        size: samples of an epoch: as many as the original training set has.
        population: None: a permutation of range(size); else `size` draws with replacement from what is kept.
    """
    # Raw PCG64 words, not numpy's Generator: its streams may change between versions, the bit generator's may not.
    words = np.random.PCG64(derive_seed(seed, "epoch", epoch)).random_raw(size)
    if population is None:
        return np.argsort(words, kind="stable").astype(np.int64)
    u = to_unit(words)
    if population.weights is None:
        return population.kept[(u * len(population.kept)).astype(np.int64)]
    return population.kept[pick_by_weight(u, population.weights)]


def pick_by_weight(u: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """int64: for each u in [0, 1) the index whose stretch of the weights' running sum it falls into."""
    edges = np.cumsum(weights)
    found = np.searchsorted(edges, u * edges[-1], side="right")
    # Rounding of u * edges[-1] can reach edges[-1] itself; that draw belongs to the last item with any weight.
    return np.minimum(found, np.flatnonzero(weights)[-1])


def steps(size: int, inputs_per_step: int) -> list[slice]:
    """Consecutive slices of the global sequence, one an optimizer step over all workers.

    A remainder smaller than ceil(inputs_per_step/8) joins the step before: batch norm over one or two samples
    wrecks a model.
    """
    if size < 1 or inputs_per_step < 1:
        raise ValueError(f"size = {size}, inputs_per_step = {inputs_per_step}; allowed: >= 1")
    starts = list(range(0, size, inputs_per_step))
    if len(starts) > 1 and size - starts[-1] < -(-inputs_per_step // 8):
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], size], strict=True)]


def share(step: slice, rank: int, world: int) -> np.ndarray:
    """Positions (int64) of the global sequence that `rank` of `world` trains on in this step; may be empty."""
    if not 0 <= rank < world:
        raise ValueError(f"rank = {rank}; allowed: 0 to {world - 1}")
    return np.arange(step.start + rank, step.stop, world, dtype=np.int64)


def view_seeds(seed: int, epoch: int, positions: np.ndarray, purpose: str = "view") -> np.ndarray:
    """63-bit seeds (int64, the shape of `positions`) of the training views at these positions of the sequence.

    `purpose` separates views that are drawn for different ends, e.g. training and estimating p_A.
    """
    return hashed(derive_seed(seed, purpose, epoch), positions).reshape(np.shape(positions))
