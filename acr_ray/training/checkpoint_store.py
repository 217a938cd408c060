"""Checkpoints to resume from: where they lie, which are kept, and which is good enough."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acr_ray.storage import Folder
from acr_ray.training.checkpoint import MODEL, OPTIMIZER, SAMPLES, STATE, DamagedCheckpoint, check_files, read_state

BEST = {"loss": min, "accuracy": max}  # of an epoch's record


@dataclass(frozen=True, order=True)
class Entry:
    """A checkpoint: epochs done, steps done in the next one, and what its files' names begin with."""

    epoch: int
    step: int
    name: str

    @property
    def text(self) -> str:
        return f"epoch {self.epoch}" + (f", step {self.step}" if self.step else "")


class CheckpointStore:
    """Checkpoints in a folder: ``00012_00000345_1a2b3c4d.state.json`` and its fellows.

    Files appear under their names only once complete, the state last: a checkpoint whose state is there is whole,
    unless something has damaged it since, which its hashes tell. Ray Train would keep checkpoints too, but the last
    or the best, not both; it loses those that its controller has not registered when it is killed; it would resume
    from a damaged one, and a disk that is full for a minute would end the run.

    Args:
        folder: of the checkpoints; every worker must see it.
        keep: the last so many are kept, >= 1, and the best.
        best_by: a key of `BEST`, looked up in the records of whole epochs.
        say: gets one line if something went wrong that the run survives.
    """

    def __init__(self, folder: Folder, keep: int, best_by: str, say: Callable[[str], None]) -> None:
        self.folder, self.keep, self.best_by, self.say = folder, keep, best_by, say
        self._failing = False

    def entries(self) -> list[Entry]:
        """The checkpoints, oldest first."""
        names = [name.removesuffix(f".{STATE}") for name in self.folder.names(f".{STATE}")]
        names = [name for name in names if re.fullmatch(r"\d{1,9}_\d{1,12}_\w+", name)]
        return sorted(Entry(int(n.split("_")[0]), int(n.split("_")[1]), n) for n in names)

    def add(self, epoch: int, step: int, write: Callable[[Path], None]) -> bool:
        """Keep a checkpoint that ``write`` makes in a local folder. False if there was no room for it.

        Training does not end for a full disk: the checkpoints that are there stay, and the next is tried in turn.
        """
        entry = Entry(epoch, step, f"{epoch:05d}_{step:08d}_{uuid.uuid4().hex[:8]}")
        try:
            with tempfile.TemporaryDirectory() as local:
                write(Path(local))
                for file in (MODEL, OPTIMIZER, SAMPLES, STATE):
                    self.folder.write_bytes(f"{entry.name}.{file}", (Path(local) / file).read_bytes())
        except OSError as error:
            self._delete(entry.name)
            if not self._failing:
                self.say(f"the checkpoint of {entry.text} could not be written ({error}); training continues")
            self._failing = True
            return False
        if self._failing:
            self.say(f"checkpoints can be written again, from {entry.text} on")
        self._failing = False
        for older in self.entries():  # a place has one checkpoint, so that it names it
            if (older.epoch, older.step) == (epoch, step) and older != entry:
                self._delete(older.name)
        self._prune()
        return True

    def best(self) -> Entry | None:
        """The checkpoint of whole epochs with the best last record; of equals the first."""
        return self._best({entry: self._history(entry) for entry in self.entries()})

    def newest_intact(self) -> Entry | None:
        """The newest checkpoint that verifies; None if there is none at all.

        Raises:
            DamagedCheckpoint: there are checkpoints, and none verifies.
        """
        entries, problem = self.entries(), ""
        for entry in reversed(entries):
            try:
                with tempfile.TemporaryDirectory() as local:
                    self._fetch(entry, Path(local))
                    return entry
            except DamagedCheckpoint as error:
                problem = str(error)
                self.say(f"the checkpoint of {entry.text} is damaged and not used: {problem}")
        if entries:
            raise DamagedCheckpoint(f"no checkpoint of this run is intact; the last problem: {problem}")
        return None

    def load(self, entry: Entry, read: Callable[[Path], None]) -> None:
        """Call ``read`` with a local folder that has the checkpoint's files under their own names."""
        with tempfile.TemporaryDirectory() as local:
            self._fetch(entry, Path(local))
            read(Path(local))

    def _fetch(self, entry: Entry, local: Path) -> None:
        for file in (MODEL, OPTIMIZER, SAMPLES, STATE):
            try:
                content = self.folder.read_bytes(f"{entry.name}.{file}")
            except FileNotFoundError:
                raise DamagedCheckpoint(f"{self.folder}/{entry.name}.{file}: missing") from None
            (local / file).write_bytes(content)
        try:
            check_files(local, read_state((local / STATE).read_text(errors="replace"), STATE))
        except DamagedCheckpoint as error:
            # Its place, not that of the copy.
            raise DamagedCheckpoint(f"{self.folder}/{entry.name}: {str(error).rpartition('/')[2]}") from None

    def _history(self, entry: Entry) -> list[dict[str, Any]]:
        try:
            return read_state(self.folder.read_text(f"{entry.name}.{STATE}"), entry.name)["history"]
        except (DamagedCheckpoint, KeyError, UnicodeDecodeError):
            return []

    def _best(self, histories: dict[Entry, list[dict[str, Any]]]) -> Entry | None:
        whole = {entry: history[-1] for entry, history in histories.items() if not entry.step and history}
        return BEST[self.best_by](whole, key=lambda entry: whole[entry].get(self.best_by, 0.0)) if whole else None

    def _prune(self) -> None:
        """Delete what need not be kept, files of checkpoints that were never finished included."""
        entries = self.entries()
        kept = set(entries[-self.keep :])
        best = self.best()
        names = {entry.name for entry in (kept | {best} if best else kept)}
        for file in self.folder.names():
            if file.split(".")[0] not in names:
                self._quietly_delete(file)

    def _delete(self, name: str) -> None:
        for file in (STATE, MODEL, OPTIMIZER, SAMPLES):
            self._quietly_delete(f"{name}.{file}")

    def _quietly_delete(self, file: str) -> None:
        try:
            self.folder.delete(file)
        except OSError as error:  # a store that is down for a moment; the next pruning finds it again
            self.say(f"{self.folder}/{file} could not be deleted ({error})")
