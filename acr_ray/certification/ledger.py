"""The ledger: counts of every span drawn so far, in files that only ever appear whole."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.tasks import Span, missing
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.plan import Phase
from acr_ray.storage import Folder

FOLDER = "ledger"
COMPACT_AT = 200  # files in the folder before they become one


class Ledger:
    """Adds up class counts by image and phase, and remembers on disk which blocks they come from.

    One JSON line a span: ``{"image", "phase", "first", "stop", "counts": {class: count}, "seconds"}``; counts of
    absent classes are 0. Each call of `append` writes one new file; many files are merged into one now and then.

    Args:
        folder: the run's folder; files go to ``ledger/`` in it.
        names: stable names of the run's images, in the order of its positions.
        phases: of the run.
        num_classes: length of the count vectors.

    Raises:
        UserError: a file can't be read, or doesn't belong to this run; names the file and the line.
    """

    def __init__(self, folder: Folder, names: list[str], phases: tuple[Phase, ...], num_classes: int) -> None:
        self._folder, self._names, self._num_classes = folder / FOLDER, names, num_classes
        self._position = {name: i for i, name in enumerate(names)}
        self.phases = {phase.name: phase for phase in phases}
        self.done: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
        self.evaluations = 0  # noisy forward passes behind all that is written here
        self._counts: dict[tuple[int, str], NDArray[np.int64]] = {}
        self._seconds: dict[int, float] = defaultdict(float)
        self._files = self._folder.names(".jsonl")
        for file in self._files:
            self._read(file)

    def append(self, results: list[tuple[Span, NDArray[np.int64], float]]) -> None:
        """Write finished spans with their counts and seconds, then count them as done."""
        lines = [self._line(span, counts, seconds) for span, counts, seconds in results]
        number = int(self._files[-1].split(".")[0]) + 1 if self._files else 0
        file = f"{number:08d}.jsonl"
        self._folder.write_text(file, "".join(lines))
        self._files.append(file)
        for span, counts, seconds in results:
            self._add(span, counts, seconds)
        if len(self._files) >= COMPACT_AT:
            self._compact()

    def complete(self, image: int) -> bool:
        return all(not missing(p.blocks, self.done.get((image, p.name), ())) for p in self.phases.values())

    def counts(self, image: int, phase: str) -> NDArray[np.int64]:
        """Class counts ``(num_classes,)`` of what is done of a phase of an image."""
        return self._counts.get((image, phase), np.zeros(self._num_classes, dtype=np.int64))

    def seconds(self, image: int) -> float:
        """Device seconds spent on an image."""
        return self._seconds[image]

    def _line(self, span: Span, counts: NDArray[np.int64], seconds: float) -> str:
        sparse = {str(c): int(counts[c]) for c in np.flatnonzero(counts)}
        record = {"image": self._names[span.image], "phase": span.phase, "first": span.first, "stop": span.stop}
        return json.dumps(record | {"counts": sparse, "seconds": round(seconds, 6)}) + "\n"

    def _read(self, file: str) -> None:
        text = self._folder.read_bytes(file).decode(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{self._folder}/{file} line {number}"
            try:
                record = json.loads(line)
                span = Span(self._position[record["image"]], record["phase"], record["first"], record["stop"])
                counts = np.zeros(self._num_classes, dtype=np.int64)
                for label, count in record["counts"].items():
                    counts[int(label)] = count
                seconds = float(record["seconds"])
                phase = self.phases[span.phase]
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise UserError(f"{where}: not a ledger line of this run ({type(error).__name__}: {error})") from error
            if not 0 <= span.first < span.stop <= phase.blocks or counts.min() < 0:
                raise UserError(f"{where}: blocks or counts out of range")
            if counts.sum() != sum(phase.counted(block) for block in range(span.first, span.stop)):
                raise UserError(f"{where}: the counts don't add up to the draws of these blocks")
            interval = (span.first, span.stop)
            known = self.done[span.image, span.phase]
            if interval in known:
                continue  # left by a compaction that was cut short: the same lines in the old file and the new
            if any(first < span.stop and span.first < stop for first, stop in known):
                raise UserError(f"{where}: blocks that another line already has")
            self._add(span, counts, seconds)

    def _add(self, span: Span, counts: NDArray[np.int64], seconds: float) -> None:
        key = (span.image, span.phase)
        self._counts[key] = self._counts[key] + counts if key in self._counts else counts
        self.done[key].append((span.first, span.stop))
        self.evaluations += span.blocks * self.phases[span.phase].block
        self._seconds[span.image] += seconds

    def _compact(self) -> None:
        """Join all files into the last one's name, then delete the others: at any moment every line is somewhere."""
        text = "".join(self._folder.read_text(file) for file in self._files)
        last = self._files[-1]
        self._folder.write_text(last, text)
        for file in self._files[:-1]:
            self._folder.delete(file)
        self._files = [last]
