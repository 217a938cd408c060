"""What training costs in rows through the network, planned from a recipe. Arithmetic, no network.

Exact if nothing depends on the data. Two things do: how many samples discarding keeps (p_A estimates for weights are
drawn for them alone), and how many draws are still correct at each step of the attack, which alone are passed. Without
a record of them the plan is the most that can be: all samples kept, all draws attacked to the end. The dry run, the
plan of a search and its benchmark count with these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from acr_ray.data.sampling import steps
from acr_ray.settings import Recipe
from acr_ray.training.attack import worth_looking
from acr_ray.training.methods import CountedMethod, Passes, build_method

ROWS = 500  # of a block of p_A estimates, as acr_ray.training.estimate draws them


def epoch_passes(
    recipe: Recipe, images: int, epoch: int, record: tuple[int, Sequence[float], Sequence[float]] | None
) -> Passes:
    """Count one epoch without the discard estimate.

    Args:
        images: training images.
        record: samples left and shares of active draws in this epoch, and the shares in the one before (empty if
            it made no attack), by which the loop decides at which steps to check first; None: unknown.
    """
    t = recipe.training
    method = cast(CountedMethod, build_method(recipe))  # a user's own class that counts nothing fails here
    passes = Passes()
    for cut in steps(images, recipe.inputs_per_step):
        passes += method.passes(cut.stop - cut.start, t.m)
    if not recipe.changes_at_e_t or epoch < t.e_t:
        return passes
    if epoch in reweighings(recipe):
        passes += reweigh_passes(recipe, images if record is None else record[0])
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


def reweighings(recipe: Recipe) -> range:
    """Return the epochs that begin with p_A estimates for weights."""
    t, reweigh = recipe.training, recipe.reweigh
    return range(t.e_t, t.epochs, reweigh.every) if reweigh.enabled else range(0)


def reweigh_passes(recipe: Recipe, images: int) -> Passes:
    """Return one estimate for the weights of so many samples."""
    return Passes(whole_blocks(recipe.reweigh.draws) * images, 0)


def discard_passes(recipe: Recipe, images: int) -> Passes:
    """Return the p_A estimate that discards; none if another checkpoint or a file has it, not the network trained."""
    discard = recipe.discard
    own = discard.enabled and discard.checkpoint is None and discard.p_a_file is None
    return Passes(whole_blocks(recipe.discard.draws) * images if own else 0, 0)


def whole_blocks(draws: int, rows: int = ROWS) -> int:
    """Return the draws of an estimate with its last block drawn whole."""
    block = min(draws, rows)
    return -(-draws // block) * block
