"""What a certification run set out to do, kept beside its ledger: enough to read the ledger without model or data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from acr_ray.certification.count_store import CountStore
from acr_ray.certification.joint_store import JointCountStore
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.procedure import CertificationProcedure
from acr_ray.formats.files import LEDGER, PLAN, PLAN_IMAGES
from acr_ray.formats.tables import PLAN_IMAGES as SCHEMA
from acr_ray.formats.tables import PLAN_IMAGES_VERSION, described, parquet_bytes
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.documents import check, check_version
from acr_ray.smoothing.run_noise import NoiseFacts, facts_of, judged_by
from acr_ray.storage import Folder
from acr_ray.storage.tables import check_table_version, read_table

SCHEMA_VERSION = 1
MOST_BYTES = 2**30  # of the list of images, and of an int8 network
MOST_CLASSES = 100_000  # as of a model


class _PlanFile(BaseModel):
    """`PLAN`."""

    model_config = ConfigDict(strict=True)

    schema_version: int
    settings: dict[str, Any]
    num_classes: Annotated[int, Field(ge=2, le=MOST_CLASSES)]
    model_sha256: Annotated[str, Field(max_length=200)]
    arithmetic: Annotated[str, Field(max_length=1000)]
    data: Annotated[str, Field(max_length=200)]
    class_names: list[str]
    coordinates: Annotated[int, Field(ge=0, le=2**32)] = 0


@dataclass(frozen=True)
class RunPlan:
    """A run's settings and images.

    Attributes:
        settings: of the run.
        names, idx, labels: of its images, by position.
        num_classes: of the model.
        model_sha256: of the model's weights.
        arithmetic: how they are computed with, in words; a part of what is certified.
        data: fingerprint of the images.
        class_names: of the model, in its order.
        coordinates: numbers in an image, C H W; 0 in files of before 0.3, whose noise is float.
    """

    settings: CertifySettings
    names: Sequence[str]
    idx: Sequence[int] | NDArray[np.int64]
    labels: Sequence[int] | NDArray[np.int64]
    num_classes: int
    model_sha256: str
    arithmetic: str
    data: str
    class_names: Sequence[str]
    coordinates: int = 0

    def identity(self) -> dict[str, object]:
        """Return what must be the same for counts to be the same."""
        own = {"model_sha256": self.model_sha256, "data": self.data, "arithmetic": self.arithmetic}
        return self.settings.identity() | own

    def noise(self, n: int | None = None) -> NoiseFacts:
        """What the certificates say of their noise. Args: estimation draws of an image; None: the settings' n."""
        # A statement about all images together fails with the draws of any of them.
        together = len(self.names) if self.settings.stopping == "distribution" else 1
        return facts_of(self.settings, self.coordinates * together, n)

    def judged(self) -> CertifySettings:
        """The settings that the bounds are computed with: alpha is what the noise leaves of it.

        Raises:
            UserError: it leaves nothing, or too little for n.
        """
        return judged_by(self.settings, self.noise())

    def save(self, folder: Folder) -> None:
        columns = {"image": list(self.names), "idx": np.asarray(self.idx), "label": np.asarray(self.labels)}
        table = described(pa.table(columns, schema=SCHEMA), PLAN_IMAGES_VERSION)
        folder.write_bytes(PLAN_IMAGES, parquet_bytes(table))
        about = {"num_classes": self.num_classes, "model_sha256": self.model_sha256, "arithmetic": self.arithmetic}
        about |= {"class_names": list(self.class_names), "coordinates": self.coordinates}
        settings = self.settings.model_dump(mode="json")
        # Last, and whole: where it is, the images are too.
        folder.write_json(PLAN, {"schema_version": SCHEMA_VERSION, "settings": settings, "data": self.data, **about})

    @classmethod
    def load(cls, folder: Folder) -> RunPlan:
        """Return the plan of a run. Raises UserError if the folder holds none that can be read."""
        if not folder.is_file(PLAN):
            raise UserError(f"{folder}: no certification run: {PLAN} is not there")
        where, images = f"{folder}/{PLAN}", f"{folder}/{PLAN_IMAGES}"
        try:
            plan = check(_PlanFile, check_version(folder.read_json(PLAN), where, SCHEMA_VERSION), where)
            content = folder.read_bytes(PLAN_IMAGES, MOST_BYTES)
        except OSError as error:
            raise UserError(f"{folder}: its {PLAN} or {PLAN_IMAGES} cannot be read ({error})") from error
        if len(plan.class_names) != plan.num_classes:
            raise UserError(f"{where}: has {len(plan.class_names)} class_names for {plan.num_classes} classes")
        settings = CertifySettings.build({"noise": "float", **plan.settings}, where)  # as before there was another
        table = read_table(content, {"image": "text", "idx": "whole", "label": "whole"}, images, what="list of images")
        check_table_version(table, PLAN_IMAGES_VERSION, images)
        names, idx, labels = (table[column].to_pylist() for column in ("image", "idx", "label"))
        if len(set(names)) != len(names):
            raise UserError(f"{images}: an image is listed twice")
        wrong = next((row for row, label in enumerate(labels) if not 0 <= label < plan.num_classes), None)
        if wrong is not None:
            raise UserError(f"{images} row {wrong}: label is {labels[wrong]}; allowed: 0 to {plan.num_classes - 1}")
        own = {key: getattr(plan, key) for key in ("num_classes", "model_sha256", "arithmetic", "data", "coordinates")}
        own["class_names"] = tuple(plan.class_names)
        return cls(settings=settings, names=names, idx=idx, labels=labels, **own)

    def open(self, folder: Folder) -> tuple[Ledger, CountStore]:
        """Return the run's ledger and what it holds. Raises UserError if a line does not belong to this run."""
        procedure = CertificationProcedure(self.judged())
        kind = JointCountStore if procedure.stops_together else CountStore
        store = kind(procedure, self.names, self.labels)
        ledger = Ledger(folder, self.names, self.num_classes)
        ledger.read(store)
        return ledger, store


def holds_run(folder: Folder) -> bool:
    """Return whether a certification has been begun there."""
    return folder.is_file(PLAN) and folder.exists(LEDGER)
