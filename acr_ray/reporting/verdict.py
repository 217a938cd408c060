"""What a paired comparison means, in plain language."""

from __future__ import annotations

from acr_ray.reporting.pairing import EASY, Comparison
from acr_ray.smoothing.bounds import round_down


def verdict(comparison: Comparison, unfair: str = "") -> str:
    """Two to six sentences: how ACR moved, whose images moved it, and what became of the hard ones.

    ``unfair`` says why the two cannot be compared as they stand; it comes first.
    """
    c = comparison
    caveat = f"Not a fair comparison: {unfair}." if unfair else ""
    return " ".join(part for part in (caveat, _movement(c), _at_common_budget(c), _origin(c), _hard(c)) if part)


def _movement(c: Comparison) -> str:
    before, after = round_down(c.acr_before, 4), round_down(c.acr_after, 4)
    if c.interval[0] <= 0.0 <= c.interval[1]:
        return f"ACR {before} to {after}: on these {c.images} images {c.name} cannot be told apart from {c.baseline}."
    relative = f" {abs(c.gain) / c.acr_before * 100:.1f} %" if c.acr_before > 0 else ""
    return f"ACR {'rises' if c.gain > 0 else 'falls'}{relative} over {c.baseline} ({before} to {after})."


def _at_common_budget(c: Comparison) -> str:
    if c.common_budget is None or c.common_acr is None:
        return ""
    before, after = (round_down(value, 4) for value in c.common_acr)
    n, alpha = c.common_budget
    return f"At the same budget (N = {n}, alpha = {alpha:g}): {before} to {after}."


def _origin(c: Comparison) -> str:
    """Where a gain comes from; for a loss only the hard images are worth a sentence."""
    if c.gain <= 0 or c.interval[0] <= 0:
        return ""
    share = c.gain_from_certified / c.gain
    if share <= 0:
        whose = f"It comes from images that {c.baseline} did not certify"
    elif share < 0.995:
        whose = f"{_percent(share)} of it comes from images that {c.baseline} already certified"
    else:
        whose = f"All of it comes from images that {c.baseline} already certified"
        if share > 1.005:
            whose += f", which gain {_percent(share)} of it; the others lose some of that again"
    easy = c.gain_from_easy / c.gain
    if easy > 1.005:
        whose += f"; images already at p_A >= {EASY:g} gain {_percent(easy)} of it, and the rest lose"
    elif easy > 0.005:
        whose += f"; images already at p_A >= {EASY:g} make {_percent(easy)} of it"
    return whose + "."


def _hard(c: Comparison) -> str:
    points = (c.hard_after - c.hard_before) * 100
    if abs(points) < 0.05:
        return f"As many images as before are hard (p_A < 0.5): {_percent(c.hard_after, 1)}."
    change = "more" if points > 0 else "fewer"
    return (
        f"{abs(points):.1f} points {change} images are hard (p_A < 0.5):"
        f" {_percent(c.hard_before, 1)} before, {_percent(c.hard_after, 1)} now."
    )


def _percent(share: float, digits: int = 0) -> str:
    return f"{share * 100:.{digits}f} %"
