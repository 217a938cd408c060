"""What a plan of a certification says. Loads nothing, so that the command line can name it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Forecast:
    """One stopping rule's cost and answer.

    Attributes:
        stopping, certificate: the choice.
        draws: noise draws an image, selection included: mean over images and repetitions.
        certified_accuracy: at the radii asked for, in [0, 1].
        errors: their standard errors: which images were in the pilot, what it left open of each, and the run's chance.
        acr: average certified radius in input units; of ``radii`` a lower value.
    """

    stopping: str
    certificate: str
    draws: float
    certified_accuracy: tuple[float, ...]
    errors: tuple[float, ...]
    acr: float


@dataclass(frozen=True)
class CertificationPlan:
    """What each stopping rule would cost and answer.

    Attributes:
        images: of the run.
        pilot_images, pilot_draws: behind the forecasts: images, and noise draws of each.
        rate: noise draws a second of one actor, as measured.
        actors: that the times are for.
        forecasts: one a rule.
    """

    images: int
    pilot_images: int
    pilot_draws: int
    rate: float
    actors: int
    forecasts: tuple[Forecast, ...]

    def seconds(self, forecast: Forecast) -> float:
        """Return how long the draws take all actors."""
        return forecast.draws * self.images / (self.rate * self.actors)
