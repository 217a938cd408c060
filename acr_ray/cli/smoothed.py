"""The smoothed classifier of a checkpoint."""

from __future__ import annotations

from acr_ray.models import load_checkpoint
from acr_ray.settings import UserError
from acr_ray.settings.datasets import grid_of
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.pixels import checked_sigma


def smoothed_of(
    checkpoint: str, sigma: float | None = None, seed: int = 0, model: str | None = None
) -> SmoothedClassifier:
    """Open a checkpoint as a smoothed classifier.

    Args:
        checkpoint: a folder of ours.
        sigma: > 0; None: what it was trained on.
        seed: of its noise.
        model: its network, if that is code of yours.

    Raises:
        UserError: the checkpoint cannot be loaded, or sigma or seed do not fit.
    """
    network, card = load_checkpoint(checkpoint, model)
    try:
        chosen = checked_sigma(card.sigma if sigma is None else sigma)
        return SmoothedClassifier(
            network, card.num_classes, chosen, seed=seed, shape=card.shape, grid=grid_of(card.dataset)
        )
    except ValueError as error:
        raise UserError(str(error)) from None
