"""Files of a results folder, for what only takes local paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from acr_ray.storage import Folder


@contextmanager
def local_copy(folder: Folder, name: str) -> Iterator[Path]:
    """A file of a results folder as a local path."""
    if folder.is_local:
        yield folder.local_path / name
        return
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / Path(name).name
        path.write_bytes(folder.read_bytes(name))
        yield path
