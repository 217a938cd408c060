"""What a service of a smoothed classifier allows: its budgets, and its limits."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from acr_ray.settings.base import Settings
from acr_ray.settings.certify import MOST_RADII, CertifySettings, Radius

#: The smallest alpha that a client may ask for.
LEAST_ALPHA = 1e-9


class ServeSettings(Settings):
    """The limits of a service. A client may ask for less than each of them, never for more."""

    sigma: float | None = Field(None, gt=0, le=100, description="standard deviation of the noise; none: the model's")
    n0: int = Field(100, ge=1, le=1_000_000, description="noise draws that select the class")
    noise: Literal["lattice", "float"] = Field(
        "lattice", description="lattice: sound in floating point (docs/noise.md); float: float32, as the field's"
    )
    dtype: Literal["float32", "tf32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the network: another one is another classifier; bfloat16 is quick on GPUs"
    )
    max_draws: int = Field(
        10_000, ge=20, le=10_000_000, description="most noise draws behind an answer, and the n of the stopping rule"
    )
    alpha: float = Field(
        0.001, gt=LEAST_ALPHA, lt=0.5, description="probability that an answer is wrong; clients may ask for less"
    )
    certificate: Literal["one-class", "two-class"] = Field(
        "one-class", description="two-class: larger radii, from the runner-up's draws too; starts seconds later"
    )
    radii: tuple[Radius, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), max_length=MOST_RADII, description="radii to prove if a client names none"
    )
    deadline_ms: int = Field(10_000, ge=1, le=3_600_000, description="most milliseconds for an answer")
    rows: int = Field(1000, ge=1, le=100_000, description="noise draws of one forward pass, of all requests together")
    chunk: int = Field(100, ge=1, le=100_000, description="noise draws of one seed: the least that a request gets")
    queue: int = Field(256, ge=1, le=100_000, description="most images at work or waiting; more: 429")
    images: int = Field(64, ge=1, le=10_000, description="most images of one request")
    body_bytes: int = Field(16 * 2**20, ge=1024, le=2**30, description="most bytes of a request's body")
    pixels: int = Field(4096 * 4096, ge=1, le=2**28, description="most pixels of an image file, before it is resized")
    fresh: bool = Field(True, description="whether a client may ask for new noise for an image that it has sent before")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.rows % self.chunk:
            raise ValueError(f"rows = {self.rows}: must be a multiple of chunk = {self.chunk}")
        if self.images > self.queue:
            raise ValueError(f"images = {self.images}: more than queue = {self.queue}, so they would never fit")
        self.rule(1.0, self.alpha, self.radii)
        return self

    def rule(self, sigma: float, alpha: float, radii: tuple[float, ...]) -> CertifySettings:
        """Return what decides a stopping rule, for `acr_ray.smoothing.stopping.rule_for`.

        Its n is the service's `max_draws` whatever a client asks for: all budgets then end on one path of draws,
        and all that is claimed anywhere on it holds at once.
        """
        return CertifySettings(
            sigma=sigma,
            n0=self.n0,
            n=self.max_draws,
            alpha=alpha,
            radii=radii,
            stopping="radii",
            certificate=self.certificate,
            dataset="digits",
        )
