"""Data sets in object storage: fetched to a disk of the machine, and fetched anew where the store has changed.

``CACHE/<hash of the URI>/parts/`` holds each part (``train``, ``val``, …) in each version that was read;
``views/`` holds one folder for each combination of versions, with links to its parts. A version is what the store
lists: names, sizes and times of change (which the store sets anew whenever an object is written).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

from pyarrow import fs

from acr_ray.settings import UserError
from acr_ray.storage.inside import check_name, inside

CACHE = "ACR_RAY_CACHE"  # folder for fetched data sets; default: ~/.cache/acr-ray
CHUNK = 16 * 2**20

Listing = dict[str, tuple[int, int]]  # relative name ("" for a part that is a file): bytes, nanoseconds since 1970


def is_remote(root: str) -> bool:
    return "://" in root


def fetched(root: str, wanted: tuple[str, ...]) -> str:
    """A local copy of the parts of a data set that are wanted, as the store has them now.

    Each opening lists the store. What has changed since is fetched, by the first process that asks on a machine;
    what another process still reads stays.

    Args:
        root: URI that pyarrow's filesystems read, such as ``s3://bucket/imagenet-packed``.
        wanted: folders or files below it; those that are absent are passed over.

    Returns:
        the local folder that stands for ``root``.

    Raises:
        UserError: the URI can't be read, the disk is full, the store changes meanwhile, or it lists a name that does
            not stay inside.
    """
    try:
        remote, base = _store(root.rstrip("/"))
        home = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "acr-ray")
        local = home / hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:16]
        (local / "parts").mkdir(parents=True, exist_ok=True)
        with (local / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = {name: _list(remote, f"{base}/{name}", root) for name in dict.fromkeys(wanted)}
            parts = {
                name: _part(remote, f"{base}/{name}", local / "parts", name, listing, root)
                for name, listing in found.items()
                if listing is not None
            }
            return str(_view(local / "views", parts))
    except (OSError, ValueError) as error:
        raise UserError(f"--data.root {root}: cannot be fetched ({error})") from error


def local_root(root: str, wanted: tuple[str, ...] = ()) -> str:
    """Where a data set can be read here: the root itself, or what `fetched` has made of a URI.

    Args:
        root: a path or a URI.
        wanted: as for `fetched`; none: all that lies there, or the file itself.
    """
    if not is_remote(root):
        return root
    if wanted:
        return fetched(root, wanted)
    above, _, name = root.rstrip("/").rpartition("/")
    return f"{fetched(above, (name,))}/{name}"


def _store(uri: str) -> tuple[fs.FileSystem, str]:
    return fs.FileSystem.from_uri(uri)


def _list(remote: fs.FileSystem, source: str, root: str) -> Listing | None:
    """What the store has of a part; None where it has nothing."""
    info = remote.get_file_info(source)
    if info.type == fs.FileType.NotFound:
        return None
    if info.type == fs.FileType.File:
        return {"": (info.size, info.mtime_ns or 0)}
    found: Listing = {}
    for file in remote.get_file_info(fs.FileSelector(source, recursive=True)):
        if not file.path.startswith(f"{source}/"):
            raise UserError(f"--data.root {root}: the store lists {file.path[:80]!r}, which is not below {source}")
        name = check_name(file.path[len(source) + 1 :], f"--data.root {root}: the store")
        if file.type == fs.FileType.File:
            found[name] = (file.size, file.mtime_ns or 0)
        elif file.type == fs.FileType.Directory:
            found[f"{name}/"] = (0, 0)
    return found


def _part(remote: fs.FileSystem, source: str, parts: Path, name: str, listing: Listing, root: str) -> Path:
    """One folder or file in this version, made under another name and renamed: what is there is whole."""
    version = hashlib.sha256(json.dumps(sorted(listing.items())).encode()).hexdigest()[:16]
    target = parts / f"{name.replace('/', '_')}-{version}"
    if target.exists():
        return target
    aside = parts / f"{target.name}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        if "" in listing:
            _copy(remote, source, aside)
            _check_size(aside, listing[""][0], root)
        else:
            aside.mkdir()
            before, known = _newest(parts, f"{name.replace('/', '_')}-")
            for file, about in listing.items():
                if file.endswith("/"):
                    inside(aside, file.rstrip("/"), root).mkdir(parents=True, exist_ok=True)
                    continue
                place = inside(aside, file, root)
                place.parent.mkdir(parents=True, exist_ok=True)
                if known.get(file) == about:
                    os.link(before / file, place)  # unchanged: not fetched again, and no second copy
                else:
                    _copy(remote, f"{source}/{file}", place)
                    _check_size(place, about[0], root)
            _record(aside).write_text(json.dumps(listing))
            os.replace(_record(aside), _record(target))
        os.replace(aside, target)
    finally:
        _record(aside).unlink(missing_ok=True)
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
    return target


def _record(part: Path) -> Path:
    """Where the listing of a part is kept: beside it, for a folder of images holds nothing else."""
    return part.with_name(f"{part.name}.json")


def _newest(parts: Path, prefix: str) -> tuple[Path, Listing]:
    """The version of a part that was fetched last, and its listing; an empty one where there is none."""
    versions = [p for p in parts.glob(f"{prefix}*") if p.is_dir() and ".tmp-" not in p.name and _record(p).is_file()]
    if not versions:
        return parts, {}
    newest = max(versions, key=lambda part: _record(part).stat().st_mtime_ns)
    try:
        return newest, {name: tuple(about) for name, about in json.loads(_record(newest).read_text()).items()}
    except (ValueError, TypeError, AttributeError):  # a damaged record: all is fetched anew
        return parts, {}


def _view(views: Path, parts: dict[str, Path]) -> Path:
    """A folder that holds these parts under their own names."""
    view = views / hashlib.sha256(repr(sorted((n, p.name) for n, p in parts.items())).encode()).hexdigest()[:16]
    if not view.exists():
        aside = views / f"{view.name}.tmp-{uuid.uuid4().hex[:8]}"
        for name, part in parts.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).symlink_to(part.resolve())
        aside.mkdir(parents=True, exist_ok=True)
        os.replace(aside, view)
    return view


def _copy(remote: fs.FileSystem, source: str, target: Path) -> None:
    # As it is: pyarrow would unpack what ends in .gz.
    with remote.open_input_stream(source, compression=None) as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, CHUNK)


def _check_size(place: Path, size: int, root: str) -> None:
    if place.stat().st_size != size:
        raise UserError(f"--data.root {root}: {place.name} has changed while it was fetched; the same command again")
