"""``summary.json`` of the jobs that resume: read back once, by schema, before anything trusts it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from acr_ray.formats.files import CHECKPOINT, MODEL_CARD, SUMMARY
from acr_ray.settings.documents import check, check_version
from acr_ray.settings.errors import UserError
from acr_ray.storage.folder import Folder

MODEL = f"{CHECKPOINT}/{MODEL_CARD}"

Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Summary(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    schema_version: int


class _Train(_Summary):
    recipe: str
    model_sha256: Sha256
    last_epoch: dict[str, Any]


class _Certify(_Summary):
    acr: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    hard_share: Share
    certified_accuracy: dict[str, Share]
    images: Annotated[int, Field(ge=1)]
    evaluations: Annotated[int, Field(ge=1)]
    model_sha256: Sha256


class _Tune(_Summary):
    recipe: str
    trials: Annotated[int, Field(ge=1)]
    best: dict[str, Any] | None


class _Gate(_Summary):
    open: bool
    why: str
    images_seen: Annotated[int, Field(ge=0)]
    findings: list[dict[str, Any]]
    lines: list[str]


SCHEMAS = {"train": _Train, "certify": _Certify, "tune": _Tune, "gate": _Gate}


def read_summary(folder: Folder, job: str) -> dict[str, Any]:
    """Return the summary that a finished run of ``job`` has left.

    Raises:
        UserError: it is damaged, of something else, or (of a training) not of the model beside it.
    """
    where = f"{folder}/{SUMMARY}"
    try:
        summary = check(SCHEMAS[job], check_version(folder.read_json(SUMMARY), where), where).model_dump()
        card = folder.read_json(MODEL) if job == "train" and folder.is_file(MODEL) else None
    except UserError as error:
        raise UserError(
            f"{error}; no summary of a {job} run: give another folder, or --overwrite to start anew"
        ) from None
    if job == "train" and (not isinstance(card, dict) or card.get("sha256") != summary["model_sha256"]):
        raise UserError(
            f"{where}: not the summary of the model in {folder}/checkpoint; give another folder, or --overwrite to "
            "start anew"
        )
    return summary
