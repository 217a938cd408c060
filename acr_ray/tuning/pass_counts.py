"""What trials cost, planned from their list. Arithmetic, no network.

Exact if nothing depends on the data. Two things do: how many samples discarding keeps (p_A estimates for weights
are drawn for them alone), and how many draws are still correct at each step of the attack, which alone are passed.
Without a trial's record of them the plan is the most that can be: all samples kept, all draws attacked to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from acr_ray.data.sampling import steps
from acr_ray.settings import Recipe
from acr_ray.training.attack import worth_looking
from acr_ray.training.methods import CountedMethod, build_method
from acr_ray.tuning.trunks import Passes, estimate_key, trunk_identity


@dataclass(frozen=True)
class Record:
    """What a trial's epochs say about themselves, from its first own epoch on.

    Attributes:
        remaining: samples left in each epoch.
        active: share of the draws still correct before each step of the attack, an empty list if none was made.
    """

    remaining: Sequence[int]
    active: Sequence[Sequence[float]]


def epoch_passes(
    recipe: Recipe, images: int, epoch: int, record: tuple[int, Sequence[float], Sequence[float]] | None
) -> Passes:
    """One epoch without the discard estimate.

    Args:
        images: training images.
        record: samples left and shares of active draws in this epoch, and the shares in the one before (empty if
            it made no attack), by which the loop decides at which steps to check first; None: unknown.
    """
    t, reweigh = recipe.training, recipe.reweigh
    method = cast(CountedMethod, build_method(recipe))  # a user's own class that counts nothing fails here
    passes = Passes()
    for cut in steps(images, recipe.inputs_per_step):
        passes += Passes(*method.passes(cut.stop - cut.start, t.m))
    if not recipe.changes_at_e_t or epoch < t.e_t:
        return passes
    if reweigh.enabled and (epoch - t.e_t) % reweigh.every == 0:
        passes += Passes(_whole_blocks(reweigh.draws) * (images if record is None else record[0]), 0)
    if recipe.attack.enabled:
        active, before = ([1.0] * recipe.attack.steps, ()) if record is None else record[1:]
        passes += attack_passes(images * t.m, active, worth_looking(before))
    return passes


def attack_passes(copies: int, active: Sequence[float], looks: Sequence[bool]) -> Passes:
    """An epoch's attacks without padding. Step t passes what step t - 1 found correct, forward and backward; if it
    looks first, forward, and again forward and backward what it finds correct."""
    passes, rows = Passes(), copies
    for step, share in enumerate(active):
        correct, look = round(share * copies), step < len(looks) and looks[step]
        passes += Passes(rows + correct, correct) if look else Passes(rows, rows)
        rows = correct
    return passes


def discard_passes(recipe: Recipe, images: int) -> Passes:
    """Return the p_A estimate that discards; none if another checkpoint or a file has it, not the network trained."""
    discard = recipe.discard
    own = discard.enabled and discard.checkpoint is None and discard.p_a_file is None
    return Passes(_whole_blocks(recipe.discard.draws) * images if own else 0, 0)


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


def _whole_blocks(draws: int, rows: int = 500) -> int:
    """Return the draws of an estimate with its last block drawn whole."""
    block = min(draws, rows)
    return -(-draws // block) * block
