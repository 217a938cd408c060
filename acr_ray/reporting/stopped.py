"""Certificates whose draws were stopped by a rule: whether their stored bounds can be right, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from acr_ray.settings.errors import UserError
from acr_ray.smoothing.bounds import lower_bound
from acr_ray.smoothing.rules import (
    DISTRIBUTION,
    PLAIN,
    RADII,
    RANDOMIZED,
    TWO_CLASS,
    TWO_CLASS_KIND,
    TWO_CLASS_RADII,
    WIDTH,
    certificate_kind,
)
from acr_ray.smoothing.two_class import two_class_p_lower

BOUNDS = (PLAIN, RANDOMIZED, RADII, WIDTH, TWO_CLASS, TWO_CLASS_RADII, DISTRIBUTION)
#: Chance of its own counts below which a stored bound is taken to belong to other counts.
_IMPOSSIBLE = 1e-12
_AGREES = 1e-9


def check_bounds(
    p_lower: NDArray[np.float64],
    certified: NDArray[np.bool_],
    count: NDArray[np.int64],
    n: NDArray[np.int64],
    alpha: float,
    bound: str,
    where: str,
    count_second: NDArray[np.int64] | None = None,
) -> None:
    """Compare stored lower bounds with the counts beside them, as far as the bound allows.

    - every bound: above 1/2 and at most ``alpha**(1/n)`` (what n agreeing draws prove) if certified, 0 elsewhere;
    - ``clopper-pearson``: equal to what the counts give, within 1e-9;
    - its randomised form: between the Clopper-Pearson bounds of ``count`` and ``count + 1``;
    - sequential bounds hold from an earlier look on, so they may lie above the final share ``count / n``; refused is
      only what the counts all but exclude (chance below 1e-12 were p_A the bound);
    - ``two-class``: equal to what both counts give, within 1e-9. Its sequential form is a bound on no single share:
      of it only the first line is checked.

    Args:
        p_lower, certified, count, n: one entry an image.
        count_second: the most draws of another class; needed for ``two-class``.

    Raises:
        UserError: names the file, the row and the values.
    """
    ceiling = np.exp(np.log(alpha) / n)
    rules = [
        (certified | (p_lower == 0), "but nothing is certified there: must be 0"),
        (~certified | ((p_lower > 0.5) & (p_lower < 1)), "must lie between 0.5 and 1 if certified"),
        (~certified | (p_lower <= ceiling * (1 + _AGREES)), "more than so many draws can prove"),
    ]
    if bound in (PLAIN, RANDOMIZED):
        least = lower_bound(count, n, alpha)
        most = least if bound == PLAIN else lower_bound(np.minimum(count + 1, n), n, alpha)
        fits = (p_lower >= least - _AGREES) & (p_lower <= most + _AGREES)
        rules.append((~certified | fits, f"but {bound} of its counts is {{least:.9f}}"))
    elif bound == TWO_CLASS and count_second is not None:
        given = two_class_p_lower(count, count_second, n, alpha)
        rules.append((~certified | (np.abs(p_lower - given) <= _AGREES), f"which {bound} of its counts does not give"))
    elif bound != TWO_CLASS_RADII:
        # P[X <= count], X ~ Binomial(n, p_lower), and 1 if all agree.
        chance = np.where(count == n, 1.0, special.betainc(np.maximum(n - count, 1), count + 1, 1 - p_lower))
        rules.append((~certified | (chance >= _IMPOSSIBLE), "which its own counts exclude"))
    for fine, rule in rules:
        if not fine.all():
            row = int(np.argmin(fine))
            held = f"({count[row]} of {n[row]} draws)"
            reason = rule.format(least=float(lower_bound(count[row], n[row], alpha)))
            raise UserError(f"{where} row {row}: p_lower is {p_lower[row]:.9f} {held}, {reason}")


def notes(bound: str, n: NDArray[np.int64], wrong: NDArray[np.bool_], grid: Sequence[float] | None) -> tuple[str, ...]:
    """Return what a reader must know about the numbers, one sentence each.

    Args:
        bound: of the file.
        n: draws behind each image's counts; of ``wrong`` images the selection draws.
        wrong: images that ended with the selection draws because the selected class is not the label.
        grid: radii that a run of `RADII` asked for; empty if it doesn't say.
    """
    sentences = []
    drawn = n[~wrong]
    between = f"{drawn.min()} to {drawn.max()} draws an image" if drawn.size else "no estimation draws"
    if certificate_kind(bound) == TWO_CLASS_KIND:
        sentences.append(
            "two-class certificates: radii also use the runner-up's count, so they are larger than the field's"
            " one-class radii and not comparable with them"
        )
    if bound in (RADII, TWO_CLASS_RADII):
        asked = f" ({', '.join(f'{r:g}' for r in grid)})" if grid else ""
        sentences.append(
            f"stopped once the answers at its radii{asked} were known, after {between}: certified accuracy there is"
            " what it certifies; elsewhere, and in ACR, each radius is a lower end, the largest of these radii that"
            " is certified, so its ACR is not comparable with that of a fixed N"
        )
    elif bound == WIDTH:
        sentences.append(
            f"stopped where more draws would hardly raise the radius, after {between}: radii and ACR lie a little"
            " below those of all draws"
        )
    elif bound == DISTRIBUTION:
        sentences.append(
            f"drawn for the distribution of p_A, after {between}: certified accuracy and ACR are what those few draws"
            " certify, lower than with all draws"
        )
    elif drawn.size and drawn.min() != drawn.max():
        sentences.append(f"the number of draws differs between images ({drawn.min()} to {drawn.max()})")
    if bound in (RADII, WIDTH, TWO_CLASS_RADII):
        sentences.append(
            "p_A is estimated from draws that ended by what they showed, which biases it a little: no ACR at another"
            " N or alpha is derived from it"
        )
    if bound == RANDOMIZED:
        sentences.append("randomised Clopper-Pearson bounds: radii also depend on one seeded coin an image")
    if wrong.any():
        sentences.append(
            f"{int(wrong.sum())} of {n.size} images ended with their selection draws because the selected class is"
            " wrong: counted as without a certified class, which changes no certified accuracy and no ACR; their"
            " p_A is estimated from those few draws"
        )
    return tuple(sentences)
