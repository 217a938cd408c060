"""Which machines drew a run's noise: noted while it runs, named in its certificates, compared by an audit."""

from __future__ import annotations

from typing import Any

from acr_ray.certification.pool import Machine
from acr_ray.formats.files import RUN
from acr_ray.storage import Folder
from acr_ray.storage.run_record import read_run


def noted(record: dict[str, Any]) -> list[Machine]:
    """Return the machines that a run's record names, in order; runs of before 0.3 name none."""
    return sorted(Machine(one["device"], one["torch"]) for one in record.get("drawn_by") or [])


def drawn_by(folder: Folder) -> list[Machine]:
    """Return the machines that the run in a folder names; none if its record is not there."""
    return noted(read_run(folder)) if folder.is_file(RUN) else []


def told_if_other(here: Machine, before: list[Machine]) -> str:
    """Return a line if lines of a ledger are drawn again on a machine that did not draw it; "" if it did, or may have.

    Args:
        before: of the ledger; none if that is not known.
    """
    if not before or here in before:
        return ""
    theirs = "; ".join(map(str, before))
    same_device = any(here.device == one.device for one in before)
    what = "another torch" if same_device else "another device"
    return f"drawn again with {what} ({here}) than the ledger's ({theirs}): the last bits of a logit may differ"
