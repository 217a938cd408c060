"""One folder, one run: the same command again goes on with it, another is refused."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from acr_ray.settings.documents import check, check_version
from acr_ray.settings.errors import UserError
from acr_ray.storage.folder import Folder

RUN = "run.json"
SCHEMA = 1


class RunRecord(BaseModel):
    """What `RUN` holds; jobs may add more."""

    model_config = ConfigDict(extra="allow", strict=True)

    schema_version: int
    job: str
    identity: dict[str, Any]
    mlflow_run_id: str | None = None
    tracked: bool | None = None


def claim(folder: Folder, job: str, identity: dict[str, Any], *, overwrite: bool = False, owned: tuple[str, ...] = ()):
    """Make ``folder`` the place of this run and say whether the run had begun before.

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
    if overwrite and folder.is_file(RUN) and (held := folder.read_json(RUN).get("job")) != job:
        raise UserError(
            f"{folder.option} {folder}: holds a {held} run, not {job}, and --overwrite leaves that"
            " alone; give another folder"
        )
    folder.make_writable()
    if overwrite:
        for name in (*owned, RUN):
            folder.delete(name)
    record = {"schema_version": SCHEMA, "job": job, "identity": _plain(identity)}
    if not folder.is_file(RUN):
        taken = [name for name in owned if folder.exists(name)]
        if taken:
            raise UserError(
                f"{folder.option} {folder}: holds {', '.join(taken)} of an unknown run; "
                "give another folder, or --overwrite to start anew"
            )
        folder.write_json(RUN, record)
        return record
    found = read_run(folder)
    if found["job"] != job:
        raise UserError(f"{folder.option} {folder}: holds a {found['job']} run, not {job}; give another folder")
    before, now = found["identity"], record["identity"]
    for key in {**now, **before}:
        if before.get(key) != now.get(key):
            if _is_hash(before.get(key)) or _is_hash(now.get(key)):
                raise UserError(
                    f"{folder.option} {folder}: holds a run with another {key}: its content has changed (was "
                    f"{_short(before.get(key))}, is {_short(now.get(key))}); give another folder, what it was before, "
                    "or --overwrite to start anew"
                )
            raise UserError(
                f"{folder.option} {folder}: holds a run with other settings: {key} was {before.get(key)!r}, "
                f"is {now.get(key)!r}; give another folder, the old settings, or --overwrite to start anew"
            )
    return found


def read_run(folder: Folder) -> dict[str, Any]:
    """The record of the run that a folder holds. Raises UserError where it is damaged or of another version."""
    where = f"{folder}/{RUN}"
    found = check_version(folder.read_json(RUN), where, SCHEMA)
    return check(RunRecord, found, where).model_dump(exclude_unset=True)


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
