"""What files say of their run beside their rows: read once, with ranges, so that no later step meets an odd value."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from acr_ray.settings.certify import MOST_RADII
from acr_ray.settings.documents import check

MOST_SIGMA = 100  # as in a run's settings
MOST_DRAWS = 3_000_000_000  # pairs of counts and draws still fit in 64 bits; merged runs may have more than one run has
MOST_RADIUS = 1000.0  # no arithmetic of ours certifies more than about 8 sigma
MOST_CLASSES = 1_000_000
MOST_NAMES = 100_000  # of classes, as a model may have

Radius = Annotated[float, Field(ge=0, le=MOST_RADIUS)]


class RunFacts(BaseModel):
    """Of a summary, what a reader goes by; None if it is not there. Others may be there, too."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    planned_images: Annotated[int | None, Field(ge=0, le=10**9, strict=True)] = None
    incomplete: Annotated[bool | None, Field(strict=True)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_DRAWS, strict=True)] = None
    sigma: Annotated[float | None, Field(gt=0, le=MOST_SIGMA, strict=True)] = None
    alpha: Annotated[float | None, Field(gt=0, lt=1, strict=True)] = None
    bound: Annotated[str | None, Field(max_length=100)] = None
    arithmetic: Annotated[str | None, Field(max_length=1000)] = None
    radii: Annotated[list[Radius] | None, Field(max_length=MOST_RADII)] = None
    band: Annotated[float | None, Field(ge=0.001, le=0.5, strict=True)] = None
    class_names: Annotated[list[Annotated[str, Field(max_length=1000)]] | None, Field(max_length=MOST_NAMES)] = None


def check_run_facts(values: Any, where: object) -> dict[str, Any]:
    """Return a summary, checked. Raises UserError naming the file, the field and what is allowed."""
    return check(RunFacts, values, where).model_dump(exclude_unset=True)
