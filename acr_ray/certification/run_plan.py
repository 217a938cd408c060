"""What a certification run set out to do, kept beside its ledger: enough to read the ledger without model or data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acr_ray.certification.course import Course
from acr_ray.certification.ledger import FOLDER, Ledger
from acr_ray.certification.tally import Tally
from acr_ray.settings import CertifySettings, UserError
from acr_ray.storage import Folder

PLAN, IMAGES = "plan.json", "images.parquet"
SCHEMA_VERSION = 1


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
    """

    settings: CertifySettings
    names: Sequence[str]
    idx: Sequence[int]
    labels: Sequence[int]
    num_classes: int
    model_sha256: str
    arithmetic: str
    data: str

    def identity(self) -> dict[str, object]:
        """What must be the same for counts to be the same."""
        own = {"model_sha256": self.model_sha256, "data": self.data, "arithmetic": self.arithmetic}
        return self.settings.identity() | own

    def save(self, folder: Folder) -> None:
        table = pa.table({"image": list(self.names), "idx": np.asarray(self.idx), "label": np.asarray(self.labels)})
        stream = BytesIO()
        pq.write_table(table, stream)
        folder.write_bytes(IMAGES, stream.getvalue())
        about = {"num_classes": self.num_classes, "model_sha256": self.model_sha256, "arithmetic": self.arithmetic}
        settings = self.settings.model_dump(mode="json")
        # Last, and whole: where it is, the images are too.
        folder.write_json(PLAN, {"schema_version": SCHEMA_VERSION, "settings": settings, "data": self.data, **about})

    @classmethod
    def load(cls, folder: Folder) -> RunPlan:
        """Raises UserError where the folder holds no plan that can be read."""
        if not folder.is_file(PLAN):
            raise UserError(f"{folder}: no certification run: {PLAN} is not there")
        found = folder.read_json(PLAN)
        if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
            raise UserError(f"{folder}/{PLAN}: not a plan of schema version {SCHEMA_VERSION}")
        try:
            table = pq.read_table(pa.BufferReader(folder.read_bytes(IMAGES)))
            names, idx, labels = (table[column].to_pylist() for column in ("image", "idx", "label"))
            settings = CertifySettings.build(found["settings"], f"{folder}/{PLAN}")
            own = {key: found[key] for key in ("num_classes", "model_sha256", "arithmetic", "data")}
            return cls(settings=settings, names=names, idx=idx, labels=labels, **own)
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise UserError(f"{folder}: its {PLAN} or {IMAGES} is damaged ({error})") from error

    def open(self, folder: Folder) -> tuple[Ledger, Tally]:
        """The run's ledger and what it holds. Raises UserError where a line does not belong to this run."""
        tally = Tally(Course(self.settings), self.names, self.labels)
        ledger = Ledger(folder, self.names, self.num_classes)
        ledger.read(tally)
        return ledger, tally


def holds_run(folder: Folder) -> bool:
    """Whether a certification has been begun there."""
    return folder.is_file(PLAN) and folder.exists(FOLDER)
