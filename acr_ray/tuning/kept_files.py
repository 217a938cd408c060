"""The small JSON files of a search, read back by schema."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from acr_ray.settings.documents import check
from acr_ray.storage import Folder

Count = Annotated[int, Field(ge=0, le=2**62)]
Number = Annotated[float, Field(ge=0)]


class _Entry(BaseModel):
    """Of a trunk: a checkpoint (``epoch_….json``) or an estimate of p_A (``p_a_….json``)."""

    model_config = ConfigDict(extra="allow", strict=True)

    epoch: Count
    forward_passes: Count
    backward_passes: Count
    folder: str | None = None
    kept: bool = True


class _Report(BaseModel):
    """Of a trial that came to its end."""

    model_config = ConfigDict(extra="allow", strict=True)

    trial: str
    status: str
    epoch: Count


class _Images(BaseModel):
    """Of a validation: what each image gave."""

    radii: list[Number]
    hard: list[Annotated[int, Field(ge=0, le=1)]]


def _read(folder: Folder, name: str, schema: type[BaseModel]) -> dict[str, Any]:
    return check(schema, folder.read_json(name), f"{folder}/{name}").model_dump(exclude_unset=True)


def read_entry(folder: Folder, name: str) -> dict[str, Any]:
    """A trunk's entry. Raises UserError if it is something else."""
    return _read(folder, name, _Entry)


def read_report(folder: Folder, name: str) -> dict[str, Any]:
    """A trial's report. Raises UserError if it is something else."""
    return _read(folder, name, _Report)


def read_image_values(folder: Folder, name: str) -> dict[str, Any]:
    """``radii`` and ``hard`` of a validation's images. Raises UserError if it is something else."""
    return _read(folder, name, _Images)
