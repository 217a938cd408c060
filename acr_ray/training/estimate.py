"""p_A of training samples, shared among the workers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from acr_ray.data import ImageSet, batches
from acr_ray.data.sampling import view_seeds
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.training.group import Group

ROWS = 500  # rows of one forward pass; part of the arithmetic, so not an option


def label_counts(
    engine: SamplingEngine,
    images: ImageSet,
    items: NDArray[np.int64],
    draws: int,
    *,
    purpose: str,
    seed: int,
    augmented: bool,
    group: Group,
    loader_workers: int = 0,
) -> NDArray[np.int64]:
    """Return how many of ``draws`` noise draws of each item get its label.

    Batches are cut from the whole list before it is shared out, and noise belongs to the image, so the counts don't
    depend on the number of workers.

    Args:
        items: indices into ``images``, ``(K,)``.
        purpose: part of every seed, e.g. ``"discard/20"``.
        augmented: estimate on a random training view (one for each item) instead of the evaluation view.

    Returns:
        int64 ``(len(images),)``: counts in [0, draws], -1 for images that are not among the items; on every worker.
    """
    phase = Phase(f"p_a/{purpose}", draws, min(draws, ROWS))
    size = max(1, ROWS // phase.block)
    mine = [items[at : at + size] for at in range(group.rank * size, len(items), group.world * size)]
    plan = [(part, view_seeds(seed, 0, part, phase.name) if augmented else None) for part in mine]
    counts = np.zeros(len(images), dtype=np.int64)
    for part, (x, y) in zip(mine, batches(images, plan, loader_workers), strict=True):
        counts[part] = engine.count_label(x, torch.as_tensor(y), [images.names[i] for i in part], seed, phase) + 1
    return group.sum(counts) - 1
