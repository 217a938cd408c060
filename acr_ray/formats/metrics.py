"""Metrics by name. One metric has one key here; how files, options and MLflow spell it is decided in this place.

The certified accuracy at radius 0.5 is ``{"certified_accuracy": {"0.5": …}}`` in a summary, ``certified_accuracy@0.5``
as an option and in a search's reports, ``certified_accuracy.0.5`` in MLflow and ``certified_accuracy_0.5`` in
``table.csv``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Metric(StrEnum):
    """What certificates and validations are summed up in."""

    ACR = "acr"
    CERTIFIED_ACCURACY = "certified_accuracy"  # at a radius
    HARD_SHARE = "hard_share"
    ABSTAINED = "abstained"
    P_A_QUANTILE = "p_a_quantile"  # at a q in [0, 1]


def number_text(value: float) -> str:
    """Return a radius or a q as it stands in keys, e.g. ``0.5``."""
    return f"{value:g}"


@dataclass(frozen=True)
class MetricKey:
    """A metric and where it is taken.

    Attributes:
        metric: which.
        at: the radius (input units) or the q; None for metrics that have no such place.
    """

    metric: Metric
    at: float | None = None

    def _joined(self, mark: str) -> str:
        return str(self.metric) if self.at is None else f"{self.metric}{mark}{number_text(self.at)}"

    @property
    def option(self) -> str:
        """As users type it and a search's reports have it."""
        return self._joined("@")

    @property
    def tracked(self) -> str:
        """As MLflow has it."""
        return self._joined(".")

    @property
    def column(self) -> str:
        """As a column of ``table.csv``."""
        return self._joined("_")
