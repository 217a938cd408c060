"""What the trials of a search cost, planned from their list; see `acr_ray.training.pass_counts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acr_ray.settings import Recipe
from acr_ray.training.methods import Passes
from acr_ray.training.pass_counts import discard_passes, epoch_passes
from acr_ray.tuning.trunks import estimate_key, trunk_identity


@dataclass(frozen=True)
class Record:
    """What a trial's epochs say about themselves, from its first own epoch on.

    Attributes:
        remaining: samples left in each epoch.
        active: share of the draws still correct before each step of the attack, an empty list if none was made.
    """

    remaining: Sequence[int]
    active: Sequence[Sequence[float]]


def trial_passes(recipe: Recipe, images: int, forked: bool, epochs: int, record: Record | None = None) -> Passes:
    """A trial's own passes up to the end of ``epochs``: without its trunk and the shared estimate if it forks."""
    begin = recipe.training.e_t if forked else 0
    passes = Passes()
    for epoch in range(begin, epochs):
        at, known = epoch - begin, None
        if record is not None:
            known = (record.remaining[at], record.active[at], record.active[at - 1] if at else ())
        passes += epoch_passes(recipe, images, epoch, known)
    estimates = not forked and recipe.changes_at_e_t and recipe.training.e_t < epochs
    return passes + (discard_passes(recipe, images) if estimates else Passes())


def trunk_passes(recipes: Sequence[Recipe], images: int) -> Passes:
    """Return all trunks that these forked trials need: each as long as its latest fork, each estimate once.

    Trunks differ in whatever acts before E_t; estimates in the trunk, E_t and how they are drawn.
    """
    latest: dict[str, Recipe] = {}
    estimates: dict[tuple[str, str], Recipe] = {}
    for recipe in recipes:
        trunk = repr(sorted(trunk_identity(recipe, {}).items()))
        if trunk not in latest or latest[trunk].training.e_t < recipe.training.e_t:
            latest[trunk] = recipe
        if recipe.discard.enabled:
            estimates[trunk, estimate_key(recipe)] = recipe
    passes = Passes()
    for recipe in latest.values():
        for epoch in range(recipe.training.e_t):
            passes += epoch_passes(recipe, images, epoch, None)
    for recipe in estimates.values():
        passes += discard_passes(recipe, images)
    return passes


def search_passes(
    recipes: Sequence[Recipe],
    images: int,
    trunks: bool,
    records: Sequence[Record] | None = None,
    epochs: Sequence[int] | None = None,
) -> Passes:
    """Training passes of a search: its trials and, if they fork, their trunks.

    Args:
        recipes: one a trial.
        images: training images.
        records: of each trial; None: the most that can be.
        epochs: to which each trial was trained; None: all to their end.
    """
    passes = trunk_passes([r for r in recipes if r.changes_at_e_t], images) if trunks else Passes()
    for number, recipe in enumerate(recipes):
        last = recipe.training.epochs if epochs is None else epochs[number]
        record = None if records is None else records[number]
        passes += trial_passes(recipe, images, trunks and recipe.changes_at_e_t, last, record)
    return passes


def validation_passes(images: int, n: int, looks: Sequence[int], rows: int) -> int:
    """Return the most that validating once can pass: every image all draws.

    Args:
        images: validation images.
        n: draws of an image.
        looks: cumulative draws after which images may stop; the last is n.
        rows: most draws of one block; a look's last block is drawn whole.
    """
    fresh = [b - a for a, b in zip((0, *looks), looks, strict=False)]
    return images * sum(-(-f // min(f, rows)) * min(f, rows) for f in fresh)
