"""What a search is asked for, as its options say it. Loads neither torch nor scipy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from acr_ray.settings import Settings

ALLOWED = "acr, certified_accuracy@RADIUS, hard_share, p_a_quantile@Q, best@R,R,…; several with commas between"


class ValidationSettings(Settings):
    """How trials are measured. The test set has no part in it."""

    share: float = Field(0.2, gt=0, lt=1, description="share of the training images held out for validation")
    most: int = Field(1000, ge=1, le=1_000_000, description="at most so many of them")
    n: int = Field(2000, ge=10, le=1_000_000, description="most draws of an image")
    alpha: float = Field(0.001, gt=0, lt=1, description="error probability of the bounds")
    stopping: Literal["rank", "fixed"] = Field(
        "rank", description="rank: an image stops once its radius is known to the tolerance; fixed: n draws an image"
    )
    tolerance: float = Field(
        0.1, gt=0, le=100, description="rank: standard error of an image's radius at which it stops, in units of σ"
    )

    @property
    def looks(self) -> tuple[int, ...]:
        """Draws after which it is asked whether an image needs more."""
        from acr_ray.smoothing.stopping import geometric_looks  # with it comes scipy

        return (self.n,) if self.stopping == "fixed" else geometric_looks(self.n, 50, 1.35)
