"""Parts 1 and 2 of the paper's recipe at work: who stays in a trainer's population, and who is drawn how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from acr_ray.data.sampling import Population
from acr_ray.settings import UserError
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.training.errors import TrainingStopped
from acr_ray.training.estimate import label_counts
from acr_ray.training.named_files import discarding_model, file_hash
from acr_ray.training.p_a_file import read_counts
from acr_ray.training.population import kept_by_p_a, radius_weights
from acr_ray.training.precision import in_precision

if TYPE_CHECKING:
    from acr_ray.training.loop import Trainer

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def adapt(trainer: Trainer, epoch: int) -> dict[str, Any]:
    """Discard and reweigh where this epoch asks for it. Returns what its record says of it.

    Raises:
        TrainingStopped: nothing would be left to train on.
    """
    recipe, progress = trainer.recipe, trainer.progress
    t, discard, reweigh = recipe.training, recipe.discard, recipe.reweigh
    record: dict[str, Any] = {}
    everything = np.arange(len(trainer.images), dtype=np.int64)
    if epoch == t.e_t:
        progress.population = Population(everything, None) if reweigh.enabled or t.replacement else None
    if discard.enabled and epoch == t.e_t:
        counts = progress.p_a.get("discard")  # a fork brings what another of its trunk has estimated
        counts = discard_counts(trainer) if counts is None else counts
        kept = everything[kept_by_p_a(counts, discard.draws, discard.p_t)]
        if len(kept) == 0:
            raise TrainingStopped(
                f"discard: no training sample has p_A >= {discard.p_t} at epoch {epoch}; "
                "lower discard.p_t or raise training.e_t"
            )
        progress.population = Population(kept, None)
        progress.p_a["discard"] = counts
        record |= _describe("discard", counts, discard.draws)
    if reweigh.enabled and (epoch - t.e_t) % reweigh.every == 0:
        kept = progress.population.kept
        counts = _counts(trainer, kept, reweigh.draws, f"reweigh/{epoch}", reweigh.view, False)
        weights = radius_weights(counts[kept], reweigh.draws, reweigh.p_min, reweigh.alpha)
        if not weights.any():
            raise TrainingStopped(
                f"reweigh: every sample's weight is 0 at epoch {epoch}; raise reweigh.p_min or reweigh.draws"
            )
        progress.population = Population(kept, weights)
        progress.p_a["reweigh"] = counts
        effective = float(weights.sum() ** 2 / (weights**2).sum() / len(weights))
        record |= _describe("reweigh", counts[kept], reweigh.draws)
        record |= {"reweigh_effective_share": effective, "reweigh_weight_quantiles": _quantiles(weights)}
    return record


def discard_counts(trainer: Trainer) -> NDArray[np.int64]:
    """Label counts of every training sample, as discarding at the epoch that comes next needs them."""
    everything, discard = np.arange(len(trainer.images), dtype=np.int64), trainer.recipe.discard
    purpose = f"discard/{trainer.progress.epoch}"
    if discard.p_a_file is not None:
        expected = trainer.contents.get(discard.p_a_file)
        if expected is not None and file_hash(discard.p_a_file) != expected:
            raise UserError(
                f"discard.p_a_file {discard.p_a_file}: has changed since the run began; put the first one back, or "
                "start anew with --overwrite"
            )
        return read_counts(discard.p_a_file, trainer.images, discard.draws)
    return _counts(trainer, everything, discard.draws, purpose, discard.view, discard.checkpoint is not None)


def _counts(
    trainer: Trainer, items: NDArray[np.int64], draws: int, purpose: str, view: str, by_checkpoint: bool
) -> NDArray[np.int64]:
    engine, recipe, images = trainer.engine, trainer.recipe, trainer.images
    if by_checkpoint:
        model, card = discarding_model(recipe, trainer.images, trainer.contents)
        # Its predictions are compared with labels that are counted as its classes are.
        images = images.in_order_of(card.class_names, f"discard.checkpoint {recipe.discard.checkpoint}")
        model = model.to(device=trainer.device, memory_format=trainer.memory_format)
        model = in_precision(model, recipe.training.precision, trainer.device)
        engine = SamplingEngine(model, card.num_classes, recipe.training.sigma, trainer.device)
    with trainer.timers("p_a"):
        return label_counts(
            engine, images, items, draws, purpose=purpose, seed=trainer.seed, augmented=view == "training",
            group=trainer.group, loader_workers=recipe.data.loader_workers,
        )  # fmt: skip


def _describe(name: str, counts: NDArray[np.int64], draws: int) -> dict[str, Any]:
    p_a = counts / draws
    return {
        f"{name}_p_a_mean": float(p_a.mean()),
        f"{name}_hard_share": float((p_a < 0.5).mean()),
        f"{name}_p_a_histogram": np.histogram(p_a, bins=10, range=(0, 1))[0].tolist(),
    }


def _quantiles(weights: NDArray[np.float64]) -> list[float]:
    """Of the sampling weights over their mean, so 1 is a sample drawn as often as without weights; see `QUANTILES`."""
    return [round(float(q), 6) for q in np.quantile(weights / weights.mean(), QUANTILES)]
