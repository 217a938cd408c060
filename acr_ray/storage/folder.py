"""A folder of results: whole files appear under their names, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from pyarrow import fs

from acr_ray.settings.documents import MOST_BYTES, decoded, parse_json, read_file, too_large
from acr_ray.settings.errors import UserError
from acr_ray.storage.inside import check_name


class Folder:
    """A local path or a URI such as ``s3://bucket/prefix``.

    Files are written to a temporary name and renamed (object stores put whole objects anyway), so a
    reader, or a process started after a kill, never sees half a file.

    Names of files in it are relative and stay inside it, whoever chose them.

    Raises:
        UserError: the location cannot be understood, created or written; or a name would lead out of it.
    """

    def __init__(self, location: str | os.PathLike[str], *, option: str = "--out") -> None:
        self.option = option
        text = os.fspath(location)
        try:
            if "\0" in text:
                raise ValueError("it holds a NUL character")
            if "://" in text:
                self._fs, self._root = fs.FileSystem.from_uri(text)
                if not self._root:
                    raise ValueError("it names no bucket or folder")
                self.uri = text.rstrip("/")
            else:
                self._fs, self._root = fs.LocalFileSystem(), str(Path(text).expanduser().resolve())
                self.uri = self._root
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{option} {text[:300]}: not a path or a URI that can be opened ({error})") from error

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri.rstrip('/')}/{check_name(name, self.uri)}", option=self.option)

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        return isinstance(self._fs, fs.LocalFileSystem)

    @property
    def poll_seconds(self) -> float:
        """Seconds between two reads of a file that somebody else changes; each read of an object store is paid for."""
        return 0.5 if self.is_local else 2.0

    @property
    def local_path(self) -> Path:
        """The folder as a path. Raises ValueError for remote folders."""
        if not self.is_local:
            raise ValueError(f"{self.uri} is not local")
        return Path(self._root)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{check_name(name, self.uri)}" if name else self._root

    def make_writable(self) -> Folder:
        """Create the folder and prove that a file can be written there."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(self._path(probe)) as stream:
                stream.write(b"")
            self._fs.delete_file(self._path(probe))
        except OSError as error:
            raise UserError(f"{self.option} {self.uri}: cannot be written ({_reason(error)})") from error
        return self

    def prove_writable(self) -> None:
        """The same, and leave nothing behind that was not there: for what is checked before anything is made."""
        if not self.is_local:
            existed = self.exists()
            self.make_writable()
            if not existed:
                self._fs.delete_dir(self._root)
            return
        path = Path(self._root)
        made = [place for place in (path, *path.parents) if not place.exists()]
        try:
            self.make_writable()
        finally:
            for place in made:  # the innermost first; what is not empty by now is somebody's
                with contextlib.suppress(OSError):
                    place.rmdir()

    def exists(self, name: str = "") -> bool:
        return self._fs.get_file_info(self._path(name)).type != fs.FileType.NotFound

    def is_file(self, name: str) -> bool:
        return self._fs.get_file_info(self._path(name)).type == fs.FileType.File

    def names(self, suffix: str = "") -> list[str]:
        """Names of the files directly in this folder, sorted; empty if the folder is absent."""
        selector = fs.FileSelector(self._root, allow_not_found=True)
        names = [info.base_name for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File]
        return sorted(n for n in names if n.endswith(suffix) and not n.startswith(".") and ".tmp-" not in n)

    def read_bytes(self, name: str, most: int | None = None) -> bytes:
        """The content of a file of at most ``most`` bytes.

        Raises:
            OSError: it is missing or can't be read.
            UserError: it is no regular file, or larger.
        """
        path = self._path(name)
        if self.is_local:
            return read_file(path, most)
        with self._fs.open_input_stream(path) as stream:
            content = stream.read() if most is None else stream.read(most + 1)
        if most is not None and len(content) > most:
            raise UserError(too_large(f"{self.uri}/{name}", len(content), most))
        return content

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a whole file, durable and under its name only once complete."""
        if not self.is_local:
            with self._fs.open_output_stream(self._path(name)) as stream:
                stream.write(content)
            return
        target = Path(self._path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex[:8]}")
        try:
            with aside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)

    def read_text(self, name: str) -> str:
        """The file as text. Raises UserError if it is not UTF-8."""
        return decoded(self.read_bytes(name), f"{self.uri}/{name}")

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def read_json(self, name: str, most: int = MOST_BYTES) -> Any:
        """Raises UserError if the file is not JSON, has a key twice, or is too large or nested too deep."""
        where = f"{self.uri}/{name}"
        return parse_json(decoded(self.read_bytes(name, most), where), where)

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, sort_keys=False) + "\n")

    def delete(self, name: str) -> None:
        """Delete a file or a folder below this one; nothing happens if it is absent."""
        info = self._fs.get_file_info(self._path(name))
        if info.type == fs.FileType.Directory:
            self._fs.delete_dir(self._path(name))
        elif info.type == fs.FileType.File:
            self._fs.delete_file(self._path(name))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
