"""Folders that a job writes anew each time: its own, or nobody's."""

from __future__ import annotations

from typing import Any

from acr_ray.formats.files import RUN, SUMMARY
from acr_ray.settings.errors import UserError
from acr_ray.storage.folder import Folder
from acr_ray.storage.run_record import SCHEMA, read_run


def check_own(folder: Folder, job: str, files: tuple[str, ...], mark: str = "") -> dict[str, Any] | None:
    """See that what ``job`` is about to write there replaces nothing but what it left itself; writes nothing.

    Args:
        job: name of the job, e.g. ``"report"``.
        files: names that it writes.
        mark: a key of ``summary.json`` by which the job's folders of earlier versions, without ``run.json``, are known.

    Returns:
        the record that the job left there before; None if the folder is nobody's yet.

    Raises:
        UserError: the folder holds another job's results, or files of these names that the job did not write.
    """
    if folder.is_file(RUN):
        record = read_run(folder)
        held = record["job"][:100]
        if held != job:
            raise UserError(
                f"{folder.option} {folder}: holds the results of jobs.{held}, which jobs.{job} would overwrite;"
                " give another folder"
            )
        return record
    taken = [name for name in files if folder.exists(name)]
    if taken and not (mark and _is_marked(folder, mark)):
        raise UserError(
            f"{folder.option} {folder}: holds {', '.join(taken[:4])}, which jobs.{job} did not write and would"
            " overwrite; give another folder"
        )
    return None


def own(folder: Folder, job: str, files: tuple[str, ...], mark: str = "", **more: Any) -> dict[str, Any]:
    """`check_own`, then make the folder the job's: ``run.json`` says so before anything else is written.

    Returns:
        the record, with ``more`` added.
    """
    before = check_own(folder, job, files, mark) or {"schema_version": SCHEMA, "job": job, "identity": {}}
    folder.make_writable()
    record = {**before, **more}
    folder.write_json(RUN, record)
    return record


def _is_marked(folder: Folder, mark: str) -> bool:
    try:
        return mark in folder.read_json(SUMMARY) if folder.is_file(SUMMARY) else False
    except (UserError, TypeError):
        return False
