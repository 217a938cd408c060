"""Parts 1 and 2 of the paper's recipe at work: which samples stay in training, and how often each is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acr_ray.data import ImageSet
from acr_ray.data.sampling import Population
from acr_ray.settings import Recipe, UserError
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.training.errors import TrainingStopped
from acr_ray.training.estimate import label_counts
from acr_ray.training.group import Group
from acr_ray.training.named_files import Contents, discarding_model, file_hash
from acr_ray.training.networks import Networks
from acr_ray.training.p_a_file import read_counts
from acr_ray.training.population import kept_by_p_a, radius_weights
from acr_ray.training.precision import in_precision
from acr_ray.training.timing import Timers

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Selected:
    """What an epoch trains on.

    Attributes:
        population: the samples kept and their weights; None: all alike.
        p_a: new p_A snapshots by name (``discard``, ``reweigh``): label counts of each sample, -1 if not drawn.
        record: what the epoch's record says of it.
    """

    population: Population | None
    p_a: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


class SampleSelection:
    """Discards and reweighs training samples when the recipe asks for it. All workers call it alike.

    Args:
        recipe, images, seed, group: of the run.
        networks: the network that is trained, which estimates p_A unless the recipe names another.
        engine: passes it.
        timers: get the seconds of the estimates.
        contents: of what the recipe names by path, see `check_named`.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: ImageSet,
        seed: int,
        group: Group,
        networks: Networks,
        engine: SamplingEngine,
        timers: Timers,
        contents: Contents,
    ) -> None:
        self.recipe, self.images, self.seed, self.group = recipe, images, seed, group
        self.networks, self.engine, self.timers, self.contents = networks, engine, timers, contents
        self._preset: NDArray[np.int64] | None = None

    def preset(self, counts: NDArray[np.int64] | None) -> None:
        """Discard by these label counts instead of estimating them: a fork shares its trunk's estimate.

        Args:
            counts: int64, one a training image; None: estimate them.
        """
        self._preset = counts

    def begin_epoch(self, epoch: int, population: Population | None) -> Selected:
        """Discard and reweigh if this epoch asks for it.

        Args:
            population: of the epoch before.

        Raises:
            TrainingStopped: nothing would be left to train on.
            UserError: what the recipe discards by cannot be used.
        """
        t, discard, reweigh = self.recipe.training, self.recipe.discard, self.recipe.reweigh
        if not self.recipe.changes_at_e_t or epoch < t.e_t:
            return Selected(population)
        p_a: dict[str, NDArray[np.int64]] = {}
        record: dict[str, Any] = {}
        everything = np.arange(len(self.images), dtype=np.int64)
        if epoch == t.e_t:
            population = Population(everything, None) if reweigh.enabled or t.replacement else None
        if discard.enabled and epoch == t.e_t:
            counts = self.discard_counts(epoch) if self._preset is None else self._preset
            kept = everything[kept_by_p_a(counts, discard.draws, discard.p_t)]
            if len(kept) == 0:
                raise TrainingStopped(
                    f"discard: no training sample has p_A >= {discard.p_t} at epoch {epoch}; "
                    "lower discard.p_t or raise training.e_t"
                )
            population, p_a["discard"] = Population(kept, None), counts
            record |= _describe("discard", counts, discard.draws)
        if reweigh.enabled and (epoch - t.e_t) % reweigh.every == 0:
            assert population is not None  # made at E_t, and kept since
            kept = population.kept
            counts = self._counts(self.engine, self.images, kept, reweigh.draws, f"reweigh/{epoch}", reweigh.view)
            weights = radius_weights(counts[kept], reweigh.draws, reweigh.p_min, reweigh.alpha)
            if not weights.any():
                raise TrainingStopped(
                    f"reweigh: every sample's weight is 0 at epoch {epoch}; raise reweigh.p_min or reweigh.draws"
                )
            population, p_a["reweigh"] = Population(kept, weights), counts
            effective = float(weights.sum() ** 2 / (weights**2).sum() / len(weights))
            record |= _describe("reweigh", counts[kept], reweigh.draws)
            record |= {"reweigh_effective_share": effective, "reweigh_weight_quantiles": _quantiles(weights)}
        return Selected(population, p_a, record)

    def discard_counts(self, epoch: int) -> NDArray[np.int64]:
        """Return label counts of every training sample, as discarding at this epoch needs them."""
        discard = self.recipe.discard
        if discard.p_a_file is not None:
            expected = self.contents.get(discard.p_a_file)
            if expected is not None and file_hash(discard.p_a_file) != expected:
                raise UserError(
                    f"discard.p_a_file {discard.p_a_file}: has changed since the run began; put the first one back, "
                    "or start anew with --overwrite"
                )
            return read_counts(discard.p_a_file, self.images, discard.draws)
        engine, images = (self.engine, self.images) if discard.checkpoint is None else self._of_checkpoint()
        everything = np.arange(len(self.images), dtype=np.int64)
        return self._counts(engine, images, everything, discard.draws, f"discard/{epoch}", discard.view)

    def _of_checkpoint(self) -> tuple[SamplingEngine, ImageSet]:
        """Return the model that estimates p_A, and the images with their labels counted as its classes are."""
        t, device = self.recipe.training, self.networks.device
        model, card = discarding_model(self.recipe, self.images, self.contents)
        model = model.to(device=device, memory_format=self.networks.memory_format)
        images = self.images.in_order_of(card.class_names, f"discard.checkpoint {self.recipe.discard.checkpoint}")
        network, levels = in_precision(model, t.precision, device), self.engine.levels
        return SamplingEngine(network, card.num_classes, t.sigma, device, levels), images

    def _counts(
        self, engine: SamplingEngine, images: ImageSet, items: NDArray[np.int64], draws: int, purpose: str, view: str
    ) -> NDArray[np.int64]:
        with self.timers("p_a"):
            return label_counts(
                engine,
                images,
                items,
                draws,
                purpose=purpose,
                seed=self.seed,
                augmented=view == "training",
                group=self.group,
                loader_workers=self.recipe.data.loader_workers,
            )


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
