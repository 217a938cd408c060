"""What a paired comparison means, in plain language."""

from __future__ import annotations

from acr_ray.reporting.classes import ClassChange
from acr_ray.reporting.pairing import EASY, Comparison
from acr_ray.smoothing.bounds import round_down

MOST_GIVEN_UP = 4  # classes that a sentence names


def verdict(comparison: Comparison, unfair: str = "") -> str:
    """A sentence each for ACR, for hard images and for classes, and what a reader must know to take them rightly.

    Each judges its own number alone, by its own interval. ``unfair`` says why the two cannot be compared as they
    stand; it comes first.
    """
    c = comparison
    caveat = f"Not a fair comparison: {unfair}." if unfair else ""
    by_acr, by_images = (_movement(c), _at_common_budget(c), _origin(c)), (_hard(c), _classes(c))
    # What is shown comes before what is not: a reader of one sentence should learn something.
    first, second = (by_images, by_acr) if _within(c.interval) and not _within(c.hard_interval) else (by_acr, by_images)
    parts = (caveat, _same_model(c), _grid(c), *first, *second)
    return " ".join(part for part in parts if part)


def _within(interval: tuple[float, float]) -> bool:
    """Return whether a difference may be 0 by its interval."""
    return interval[0] <= 0.0 <= interval[1]


def _same_model(c: Comparison) -> str:
    if not c.same_model:
        return ""
    return "Both are certificates of the same weights: the classifier is the same, and no image got worse."


def _grid(c: Comparison) -> str:
    if c.grid is None:
        return ""
    listed = ", ".join(f"{r:g}" for r in c.grid)
    return f"Every radius is counted at the radii that both can say ({listed}), so both ACRs are lower values."


def _movement(c: Comparison) -> str:
    moved = f"({round_down(c.acr_before, 4)} to {round_down(c.acr_after, 4)}; {_interval(c.interval, 4)})"
    if _within(c.interval):
        return f"ACR: no difference to {c.baseline} that {c.images} images could show {moved}."
    relative = f" {abs(c.gain) / c.acr_before * 100:.1f} %" if c.acr_before > 0 else ""
    return f"ACR {'rises' if c.gain > 0 else 'falls'}{relative} over {c.baseline} {moved}."


def _interval(interval: tuple[float, float], digits: int, unit: str = "") -> str:
    low, high = (f"{'+' if v > 0 else ''}{round_down(v, digits)}" for v in interval)
    return f"95 % interval of the difference {low} to {high}{unit}"


def _at_common_budget(c: Comparison) -> str:
    if c.common_budget is None or c.common_acr is None:
        return ""
    before, after = (round_down(value, 4) for value in c.common_acr)
    n, alpha = c.common_budget
    return f"At the same budget (N = {n}, alpha = {alpha:g}): {before} to {after}."


def _origin(c: Comparison) -> str:
    """Return where a gain comes from; for a loss only the hard images are worth a sentence."""
    if c.gain <= 0 or c.interval[0] <= 0 or c.same_model:
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
    moved = f"{_percent(c.hard_before, 1)} before, {_percent(c.hard_after, 1)} now"
    explanation = f"({moved}; {_interval((c.hard_interval[0] * 100, c.hard_interval[1] * 100), 1, ' points')})"
    if _within(c.hard_interval):
        return f"Hard images (p_A < 0.5): no difference that {c.images} images could show {explanation}."
    return f"Hard images (p_A < 0.5): {abs(points):.1f} points {'more' if points > 0 else 'fewer'} {explanation}."


def _classes(c: Comparison) -> str:
    """Return the classes that are given up, else the one that lost most, and how many classes are mostly hard."""
    if c.same_model or len(c.classes) < 2:
        return ""
    before, after = (sum(share > 0.5 for share in shares) for shares in _by_class(c))
    counted = f"classes with most images hard: {before} before, {after} now, of {len(c.classes)}"
    given_up, worst = [k for k in c.classes if k.given_up], c.classes[0]
    if given_up:
        return f"{c.name} gives up {_given_up(given_up)}; {counted}."
    if worst.hard_after <= worst.hard_before:
        return f"Classes: none has a larger share of hard images than before; {counted}."
    return (
        f"Classes: hard images rise most in class {worst.shown}, from {_percent(worst.hard_before)} to"
        f" {_percent(worst.hard_after)} of its {worst.images} images{_falls_on([worst])}; {counted}."
    )


def _given_up(classes: list[ClassChange]) -> str:
    listed = [
        f"{k.shown}: {_percent(k.hard_after)} of its images are hard, {_percent(k.hard_before)} before"
        for k in classes[:MOST_GIVEN_UP]
    ]
    more = len(classes) - len(listed)
    told = f"{'class' if len(classes) == 1 else f'{len(classes)} classes:'} {'; '.join(listed)}"
    return told + (f"; and {more} more" if more else "") + _falls_on(classes)


def _falls_on(classes: list[ClassChange]) -> str:
    whom = "it" if len(classes) == 1 else "them"
    return f" ({_percent(sum(k.growth_share for k in classes))} of the growth in hard images falls on {whom})"


def _by_class(c: Comparison) -> tuple[list[float], list[float]]:
    return [k.hard_before for k in c.classes], [k.hard_after for k in c.classes]


def _percent(share: float, digits: int = 0) -> str:
    return f"{share * 100:.{digits}f} %"
