"""One folder, one run: the same command again resumes it, another is refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from acr_ray.formats.files import RUN
from acr_ray.settings.documents import check, check_version
from acr_ray.settings.errors import UserError
from acr_ray.storage.folder import Folder

SCHEMA = 1


class _Machine(BaseModel):
    """What drew: a device's name, and torch's version."""

    model_config = ConfigDict(extra="allow", strict=True)

    device: Annotated[str, Field(max_length=500)]
    torch: Annotated[str, Field(max_length=100)]


class RunRecord(BaseModel):
    """What `RUN` holds; jobs may add more."""

    model_config = ConfigDict(extra="allow", strict=True)

    schema_version: int
    job: str
    identity: dict[str, Any]
    mlflow_run_id: str | None = None
    tracked: bool | None = None
    drawn_by: Annotated[list[_Machine] | None, Field(max_length=10_000)] = None
    block_asked: int | None = None


def open_run(
    folder: Folder, job: str, identity: dict[str, Any], *, overwrite: bool = False, owned: tuple[str, ...] = ()
):
    """Make ``folder`` the place of this run; return the record of the run that it is.

    Args:
        job: name of the job, e.g. ``"train"``.
        identity: everything that decides the run's results; JSON-like.
        overwrite: forget what is there and start anew.
        owned: names that the job writes; with ``overwrite`` they are deleted. Nothing else ever is.

    Returns:
        The run's record: ``schema_version``, ``job``, ``identity``, and what `amend` added before.

    Raises:
        UserError: the folder holds a run of another job or with other settings (names the first that differs), a
            run of a newer version, or can't be written. ``overwrite`` replaces runs of the same job only.
    """
    record_before = find_run(folder, job, identity, overwrite=overwrite, owned=owned)
    folder.make_writable()
    if record_before is not None:
        return record_before
    if overwrite:
        for name in (*owned, RUN):
            folder.delete(name)
    record = {"schema_version": SCHEMA, "job": job, "identity": _plain(identity)}
    try:
        folder.write_json(RUN, record)
    except OSError as error:  # a folder of that name, say
        raise UserError(f"{folder.option} {folder}: {RUN} cannot be written there ({error})") from error
    return record


def find_run(
    folder: Folder, job: str, identity: dict[str, Any], *, overwrite: bool = False, owned: tuple[str, ...] = ()
) -> dict[str, Any] | None:
    """Find what `open_run` would, without making, writing or deleting anything.

    Returns:
        The record of the run that would resume; None if a new one would begin.

    Raises:
        UserError: as `open_run`, but for a folder that can't be written.
    """
    if overwrite:
        held = _job_in(folder)
        if held not in (None, job):
            raise UserError(
                f"{folder.option} {folder}: holds a {held} run, not {job}, and --overwrite leaves that"
                " alone; give another folder"
            )
        return None
    if not folder.is_file(RUN):
        taken = [name for name in owned if folder.exists(name)]
        if taken:
            raise UserError(
                f"{folder.option} {folder}: holds {', '.join(taken)} of an unknown run; "
                "give another folder, or --overwrite to start anew"
            )
        return None
    record = read_run(folder)
    if record["job"] != job:
        raise UserError(f"{folder.option} {folder}: holds a {record['job']} run, not {job}; give another folder")
    before, now = record["identity"], _plain(identity)
    for key in {**now, **before}:
        if before.get(key) != now.get(key):
            if _is_hash(before.get(key)) or _is_hash(now.get(key)):
                raise UserError(
                    f"{folder.option} {folder}: holds a run with another {key}: its content has changed (was "
                    f"{_short(before.get(key))}, is {_short(now.get(key))}); give another folder, what it was before, "
                    "or --overwrite to start anew"
                )
            raise UserError(
                f"{folder.option} {folder}: holds a run with other settings: {key} was {_cut(before.get(key))}, "
                f"is {_cut(now.get(key))}; give another folder, the old settings, or --overwrite to start anew"
            )
    return record


def _job_in(folder: Folder) -> str | None:
    """Whose run is there, as far as a damaged file tells."""
    try:
        held = folder.read_json(RUN) if folder.is_file(RUN) else None
    except UserError:
        return None
    job = held.get("job") if isinstance(held, dict) else None
    return job if isinstance(job, str) else None


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def read_run(folder: Folder) -> dict[str, Any]:
    """Return the record of the run that a folder holds. Raises UserError if it is damaged or of another version."""
    where = f"{folder}/{RUN}"
    record = check_version(folder.read_json(RUN), where, SCHEMA)
    return check(RunRecord, record, where).model_dump(exclude_unset=True)


def amend(folder: Folder, record: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Add to the run's record, e.g. the id of its MLflow run."""
    if any(record.get(key) != value for key, value in more.items()):
        record = {**record, **more}
        folder.write_json(RUN, record)
    return record


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("sha256:")


def _short(value: Any) -> str:
    return value[7:19] if _is_hash(value) else repr(value)


def _plain(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
