"""What the driver hears of a run: the workers' records and notes, read from their files while they grow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from acr_ray.settings import UserError
from acr_ray.settings.documents import check, parse_json
from acr_ray.storage import Folder
from acr_ray.training.worker import METRICS, NOTES


class _Record(BaseModel):
    """Of an epoch; its numbers are the method's and the recipe's own."""

    model_config = ConfigDict(extra="allow")

    epoch: Annotated[int, Field(ge=0, strict=True)]


class _Note(BaseModel):
    note: Annotated[str, Field(strict=True)]


def records(out: Folder) -> list[dict[str, Any]]:
    """The records of the epochs done, from metrics.jsonl."""
    return _lines(out, METRICS, _Record)


class Follower:
    """Hands on the record of each new epoch, and each new note, once, from a thread of its own.

    Storage that fails for a moment is asked again at the next look.

    Args:
        interval: seconds between looks; None: the folder's own.
    """

    def __init__(
        self,
        out: Folder,
        on_epoch: Callable[[dict[str, Any]], None],
        on_note: Callable[[str], None] = lambda text: None,
        interval: float | None = None,
    ) -> None:
        self._out, self._on_epoch, self._on_note = out, on_epoch, on_note
        self._interval = out.look_seconds if interval is None else interval
        self._done = threading.Event()
        self._seen, self._noted = len(records(out)), len(_lines(out, NOTES, _Note))
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.wait(self._interval):
            self._read()
        self._read()

    def _read(self) -> None:
        notes: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        with suppress(OSError, UserError):
            notes, found = _lines(self._out, NOTES, _Note), records(self._out)
        for note in notes[self._noted :]:
            self._on_note(note["note"])
        self._noted = max(self._noted, len(notes))
        for record in found[self._seen :]:
            self._on_epoch(record)
        # After a fault the workers begin again at a checkpoint, and the file is shorter for a while.
        self._seen = max(self._seen, len(found))


def _lines(out: Folder, name: str, schema: type[BaseModel]) -> list[dict[str, Any]]:
    """A file's lines, checked. Raises UserError naming the line."""
    text = out.read_text(name) if out.is_file(name) else ""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{out}/{name} line {number}"
        try:
            found.append(check(schema, parse_json(line, where), where).model_dump())
        except UserError as error:
            raise UserError(
                f"{error}; delete the file, the same command writes it anew while the run goes on"
            ) from None
    return found
