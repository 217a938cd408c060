"""The ledger: counts of all blocks drawn so far, in files that only ever appear whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from acr_ray.certification.count_store import CountStore, Overlap
from acr_ray.certification.work_items import BlockRange
from acr_ray.formats.files import LEDGER
from acr_ray.settings.documents import check, decoded, parse_json
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.plan import Phase
from acr_ray.storage import Folder

COMPACT_AT = 200  # small files in the folder before they become one
SEALED = 4 * 2**20  # bytes from which a file is left as it is: what is written again and again stays bounded
MOST_BYTES = 2**30  # of a file of it

Line = tuple[BlockRange, Mapping[int, int], float]
Whole = Annotated[int, Field(ge=0, le=2**62)]


class _LineFile(BaseModel):
    """A line as it stands there."""

    model_config = ConfigDict(allow_inf_nan=False)

    image: Annotated[str, Field(strict=True)]
    phase: Annotated[str, Field(strict=True)]
    first: Annotated[Whole, Field(strict=True)]
    stop: Annotated[Whole, Field(strict=True)]
    counts: dict[Whole, Annotated[Whole, Field(strict=True)]]  # JSON's keys are text
    seconds: Annotated[float, Field(ge=0, strict=True)]


_LINE = TypeAdapter(_LineFile)


class Ledger:
    """Remembers on disk what a `CountStore` has added up.

    One JSON line a block range: ``{"image", "phase", "first", "stop", "counts": {class: count}, "seconds"}``; counts of
    absent classes are 0. Each call of `append` writes one new file; many small files are merged now and then.

    Args:
        folder: the run's folder; files go to ``ledger/`` in it.
        names: stable names of the run's images, in the order of its positions.
        num_classes: classes are below it.
    """

    def __init__(self, folder: Folder, names: Sequence[str], num_classes: int) -> None:
        self._folder, self._names, self._num_classes = folder / LEDGER, names, num_classes
        self._sizes: dict[str, int] = {}  # of the small files, in order
        self._last = -1

    def read(self, store: CountStore) -> None:
        """Add everything on disk to an empty store.

        Raises:
            UserError: a file can't be read, or doesn't belong to this run; names the file and the line.
        """
        for where, (block_range, counts, seconds) in self.lines(store.phases):
            try:
                # A merge that was cut short leaves the same lines in an old file and the new: added once.
                store.add(block_range, counts, seconds)
            except Overlap as error:
                raise UserError(f"{where}: blocks that another line already has ({error})") from error
        store.advance_all()

    def lines(self, phases: Mapping[str, Phase]) -> Iterator[tuple[str, Line]]:
        """Yield each line on disk, checked, and where it stands. Raises UserError as `read`."""
        position = {name: i for i, name in enumerate(self._names)}
        for file in self._folder.names(".jsonl"):
            where = f"{self._folder}/{file}"
            content = self._folder.read_bytes(file, MOST_BYTES)
            self._last = max(self._last, _number(file, self._folder))
            if len(content) < SEALED:
                self._sizes[file] = len(content)
            for number, line in enumerate(decoded(content, where).splitlines(), 1):
                yield f"{where} line {number}", self._parse(line, position, phases, f"{where} line {number}")

    def append(self, lines: Sequence[Line]) -> None:
        """Write lines as one file. Raises OSError if the storage fails; nothing is written then."""
        file = f"{self._last + 1:08d}.jsonl"
        text = "".join(self._line(*line) for line in lines)
        self._folder.write_text(file, text)
        self._last += 1
        self._sizes[file] = len(text)
        if len(self._sizes) >= COMPACT_AT:
            self._compact()

    def _line(self, block_range: BlockRange, counts: Mapping[int, int], seconds: float) -> str:
        by_class = {str(c): counts[c] for c in sorted(counts)}
        record: dict[str, Any] = {"image": self._names[block_range.image], "phase": block_range.phase}
        record |= {"first": block_range.first, "stop": block_range.stop}
        return json.dumps(record | {"counts": by_class, "seconds": round(seconds, 6)}) + "\n"

    def _parse(self, line: str, position: dict[str, int], phases: Mapping[str, Phase], where: str) -> Line:
        entry = check(_LINE, parse_json(line, where), where)
        image, phase = position.get(entry.image), phases.get(entry.phase)
        if image is None or phase is None:
            unknown = f"image {entry.image!r}" if image is None else f"phase {entry.phase!r}"
            raise UserError(f"{where}: not a ledger line of this run, which has no {unknown[:120]}")
        if not entry.first < entry.stop <= phase.blocks or any(c >= self._num_classes for c in entry.counts):
            raise UserError(f"{where}: blocks, classes or counts out of range")
        if sum(entry.counts.values()) != phase.counted_between(entry.first, entry.stop):
            raise UserError(f"{where}: the counts don't add up to the draws of these blocks")
        return BlockRange(image, entry.phase, entry.first, entry.stop), entry.counts, entry.seconds

    def _compact(self) -> None:
        """Join the small files into the last one's name, then delete the others: every line is always somewhere."""
        files = list(self._sizes)
        text = "".join(self._folder.read_text(file) for file in files)
        self._folder.write_text(files[-1], text)
        for file in files[:-1]:
            self._folder.delete(file)
        self._sizes = {} if len(text) >= SEALED else {files[-1]: len(text)}


def _number(file: str, folder: Folder) -> int:
    try:
        return int(file.split(".")[0])
    except ValueError:
        raise UserError(f"{folder}/{file}: not a ledger file; they are called 00000000.jsonl, …") from None
