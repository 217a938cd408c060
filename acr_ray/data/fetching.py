"""Data sets in object storage: fetched once to a disk of the machine, then read from there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from pathlib import Path

from pyarrow import fs

from acr_ray.settings import UserError

CACHE = "ACR_RAY_CACHE"  # folder for fetched data sets; default: ~/.cache/acr-ray
CHUNK = 16 * 2**20


def is_remote(root: str) -> bool:
    return "://" in root


def fetched(root: str, wanted: tuple[str, ...]) -> str:
    """A local copy of the parts of a data set that are wanted; fetched by the first process that asks on a machine.

    Args:
        root: URI that pyarrow's filesystems read, such as ``s3://bucket/imagenet-packed``.
        wanted: folders or files below it; those that are absent are passed over.

    Returns:
        the local folder that stands for ``root``.

    Raises:
        UserError: the URI can't be read, or the disk is full.
    """
    try:
        remote, base = fs.FileSystem.from_uri(root.rstrip("/"))
        home = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "acr-ray")
        local = home / hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:16]
        local.mkdir(parents=True, exist_ok=True)
        with (local / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in wanted:
                _fetch(remote, f"{base}/{name}", local / name)
    except (OSError, ValueError) as error:
        raise UserError(f"--data.root {root}: cannot be fetched ({error})") from error
    return str(local)


def _fetch(remote: fs.FileSystem, source: str, target: Path) -> None:
    """One folder or file, made under another name and renamed: what is there is whole."""
    info = remote.get_file_info(source)
    if target.exists() or info.type == fs.FileType.NotFound:
        return
    aside = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        if info.type == fs.FileType.File:
            _copy(remote, source, aside)
        else:
            aside.mkdir()
            for file in remote.get_file_info(fs.FileSelector(source, recursive=True)):
                place = aside / file.path[len(source) :].lstrip("/")
                if file.type == fs.FileType.File:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    _copy(remote, file.path, place)
                else:
                    place.mkdir(parents=True, exist_ok=True)
        os.replace(aside, target)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def _copy(remote: fs.FileSystem, source: str, target: Path) -> None:
    with remote.open_input_stream(source) as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, CHUNK)
