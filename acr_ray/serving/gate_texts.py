"""What the gate's answer says, in words and as JSON. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from acr_ray.serving.gate import Finding
from acr_ray.serving.paired import HOLDS, OPEN, VIOLATED
from acr_ray.serving.requirements import ABSTAINED, HARD

_WORST_FIRST = {VIOLATED: 0, OPEN: 1, HOLDS: 2}


def finding_json(one: Finding, class_names: Sequence[str]) -> dict[str, Any]:
    """Return one finding as it stands in ``summary.json``."""
    return {
        "requirement": one.requirement.text,
        "metric": one.requirement.metric,
        "radius": one.requirement.radius,
        "class": None if one.label is None else class_names[one.label],
        "answer": one.answer,
        "images": one.images,
        "difference": one.difference,
    }


def why(answer: str, seen: int, findings: Sequence[Finding], class_names: Sequence[str]) -> str:
    """Return one sentence for the answer."""
    if answer == HOLDS:
        return f"all requirements hold, after {seen} images"
    one = min((f for f in findings if f.answer == answer), key=_goodness)
    whom = "" if one.label is None else f" of class {class_names[one.label]}"
    change = f"{100 * one.difference:+.2f} points among {one.images} images{whom}"
    if answer == OPEN:
        return f"'{one.requirement.text}' is not shown by all {seen} images ({change})"
    return f"'{one.requirement.text}' does not hold: {change}"


def lines(findings: Sequence[Finding], class_names: Sequence[str]) -> list[str]:
    """Return a line a requirement; of classes it speaks of the one that changed worst."""
    found = []
    for text in dict.fromkeys(one.requirement.text for one in findings):
        mine = (one for one in findings if one.requirement.text == text)
        worst = min(mine, key=lambda f: (_WORST_FIRST[f.answer], _goodness(f)))
        whom = "" if worst.label is None else f" (worst: class {class_names[worst.label]})"
        found.append(f"{text}: {worst.answer}, {100 * worst.difference:+.2f} points among {worst.images} images{whom}")
    return found


def _goodness(one: Finding) -> float:
    return -one.difference if one.requirement.metric in (HARD, ABSTAINED) else one.difference
