"""What a new model must keep to replace an old one, as users write it: ``certified_accuracy@0.5 >= -0.5pt``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from acr_ray.settings.certify import MOST_RADIUS
from acr_ray.settings.errors import UserError

CERTIFIED, WORST_CLASS, HARD, ABSTAINED = "certified_accuracy", "worst_class", "hard_share", "abstained"
#: Metrics, whether each is at a radius, and whether more of it is better.
METRICS = {CERTIFIED: (True, True), WORST_CLASS: (True, True), HARD: (False, False), ABSTAINED: (False, False)}

_FORM = re.compile(r"\s*([a-z_]+)\s*(?:@\s*([0-9.]+))?\s*(>=|<=)\s*([+-]?[0-9.]+)\s*(pt|%)?\s*")


@dataclass(frozen=True)
class Requirement:
    """One requirement on new minus old.

    Attributes:
        text: as the user wrote it.
        metric: one of `METRICS`.
        radius: l2 radius in input units; None for metrics without one.
        margin: how much worse the new model may be, a share of images; negative: how much better it must be.
    """

    text: str
    metric: str
    radius: float | None
    margin: float

    @property
    def by_class(self) -> bool:
        """Whether every class must keep it for itself."""
        return self.metric == WORST_CLASS


def read_requirements(texts: Sequence[str]) -> tuple[Requirement, ...]:
    """Read all requirements. Raises UserError for one that cannot be read, or if there are none."""
    if not texts:
        raise UserError("--require: missing; for example --require 'certified_accuracy@0.5 >= -0.5pt'")
    found = tuple(read_requirement(text) for text in texts)
    asked = [(one.metric, one.radius) for one in found]
    twice = next((one for one in found if asked.count((one.metric, one.radius)) > 1), None)
    if twice is not None:
        raise UserError(f"--require '{twice.text}': its metric is named twice")
    return found


def read_requirement(text: str) -> Requirement:
    """Read one requirement.

    Differences are of shares: ``pt`` (or ``%``) are percentage points, without it a share of 1.

    Raises:
        UserError: another form, metric, radius or value; says what is allowed.
    """
    where = f"--require {text!r}"
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"{where}: not of the form 'METRIC >= VALUE'; for example 'certified_accuracy@0.5 >= -0.5pt', "
            "'worst_class@0.5 >= -2pt', 'hard_share <= +1pt'"
        )
    metric, at, sign, value, unit = found.groups()
    if metric == "acr":
        raise UserError(
            f"{where}: acr is no requirement, as a few easy images can raise it while many get worse; "
            f"allowed: {', '.join(METRICS)}"
        )
    if metric not in METRICS:
        raise UserError(f"{where}: there is no metric {metric}; allowed: {', '.join(METRICS)}")
    has_radius, more_is_better = METRICS[metric]
    if has_radius != (at is not None):
        form = f"{metric}@RADIUS" if has_radius else metric
        raise UserError(f"{where}: {'needs a radius' if has_radius else 'takes no radius'}; write {form}")
    if (sign == ">=") != more_is_better:
        raise UserError(
            f"{where}: of {metric} {'more' if more_is_better else 'less'} is better; write "
            f"{'>=' if more_is_better else '<='}"
        )
    change = _number(value, where) / (100 if unit else 1)
    radius = None if at is None else _number(at, where)
    if not -1 < change < 1:
        raise UserError(f"{where}: {value}{unit or ''} is no difference of shares; allowed: above -100pt, below 100pt")
    if radius is not None and not 0 <= radius <= MOST_RADIUS:
        raise UserError(f"{where}: radius {at}; allowed: 0 to {MOST_RADIUS:g}")
    return Requirement(text.strip(), metric, radius, -change if more_is_better else change)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{where}: {text} is not a number") from None
