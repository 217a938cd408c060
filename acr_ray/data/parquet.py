"""Parquet files of the hub's layout: a column of encoded images, a column of labels, and the classes' names."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from acr_ray.data.arrays import labels_of, names_or_numbers
from acr_ray.data.decoded_set import DecodedSet
from acr_ray.data.decoding import decoded_image
from acr_ray.data.fetching import local_root
from acr_ray.data.framing import Framing
from acr_ray.settings import UserError
from acr_ray.settings.image_options import ImageOptions

IMAGES, LABELS = ("image", "img", "images"), ("label", "fine_label", "labels")
SPLITS = {"train": ("train",), "test": ("test", "validation", "val")}
KEPT = 2**30  # bytes of encoded images kept in memory, by row groups


def open_parquet(root: str, split: str, options: ImageOptions) -> ParquetImages:
    """The images of a split, in the order of shards and rows; decoded when they are asked for.

    Args:
        root: a file, or a folder that holds ``train*.parquet`` and ``test*.parquet`` (or ``validation*``), itself or in
            ``data/``. Columns: ``image``, a struct of bytes and path, or bytes; ``label``, numbers, or text. A single
            file is both splits.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: a file or column is missing, damaged or of another kind; it names what is there.
    """
    place = Path(local_root(root)).expanduser()
    paths = [place] if place.is_file() else _shards(place, root, split)
    images = ParquetImages(paths, split, options)
    if place.is_file():
        images.remarks += (f"--data.root {root}: one file; train and test are both all of it",)
    return images


def _shards(place: Path, root: str, split: str) -> list[Path]:
    for folder in (place, place / "data"):
        for prefix in SPLITS[split]:
            if found := sorted(folder.glob(f"{prefix}*.parquet")):
                return found
    wanted = " or ".join(f"{prefix}*.parquet" for prefix in SPLITS[split])
    raise UserError(f"--data.root {root}: no {wanted} there or in data/; or name one file")


class ParquetImages(DecodedSet):
    """See `open_parquet`. Pixels are RGB; without a size all images must be as large as the first."""

    def __init__(self, paths: list[Path], split: str, options: ImageOptions) -> None:
        self._paths, self._cache = paths, _Cache()
        labels, self._groups, names, self._column = _labels_and_groups(paths)
        where = str(paths[0].parent if len(paths) > 1 else paths[0])
        numbers = labels_of(labels, len(labels), names, where)
        self._starts = np.cumsum([0, *(rows for _, _, rows in self._groups)])
        framing = Framing.of(options, None, margin=True)
        side = framing.size or 0
        width, height = (side, side) if side else self._open(0).size
        super().__init__(
            framing=framing,
            augmentation="none" if options.augmentation == "default" else options.augmentation,
            dataset="parquet",
            split=split,
            labels=numbers,
            names=[f"parquet/{split}/{i:07d}" for i in range(len(numbers))],
            class_names=names_or_numbers(numbers, names),
            shape=(3, height, width),
            mean=None,
            std=None,
        )
        self.bare_labels = names is None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": _Cache()}  # loader processes read the files themselves

    def _open(self, row: int) -> Image.Image:
        return decoded_image(self._bytes(row), self._where(row))

    def _where(self, row: int) -> str:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        file = self._groups[group][0]
        first = next(at for at, (other, _, _) in enumerate(self._groups) if other == file)
        return f"{self._paths[file]}: row {row - self._starts[first]}"

    def _bytes(self, row: int) -> bytes:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        column = self._cache.get(group)
        if column is None:
            file, number, _ = self._groups[group]
            column = self._cache.put(group, _read_group(self._paths[file], number, self._column))
        content = column[row - int(self._starts[group])].as_py()
        if not content:
            raise UserError(f"{self._where(row)}: no bytes of an image; remove the row, or put them into the file")
        return content

    def _content(self) -> bytes:
        found = hashlib.sha256(self._framing.identity)
        for row in self.idx:
            found.update(hashlib.sha256(self._bytes(int(row))).digest())
        return found.digest()


class _Cache:
    """Row groups read last, as many as `KEPT` bytes hold, and one at least."""

    def __init__(self) -> None:
        self._held: OrderedDict[int, pa.Array] = OrderedDict()

    def get(self, group: int) -> pa.Array | None:
        if group in self._held:
            self._held.move_to_end(group)
        return self._held.get(group)

    def put(self, group: int, column: pa.Array) -> pa.Array:
        self._held[group] = column
        while len(self._held) > 1 and sum(kept.nbytes for kept in self._held.values()) > KEPT:
            self._held.popitem(last=False)
        return column


def _labels_and_groups(
    paths: list[Path],
) -> tuple[np.ndarray, list[tuple[int, int, int]], tuple[str, ...] | None, str]:
    """Labels, (file, row group, rows) of each row group, class names, and the column of images."""
    labels, groups = [], []
    names: tuple[str, ...] | None = None
    column = ""
    for at, path in enumerate(paths):
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                column, label = (_column(schema, kinds, path) for kinds in (IMAGES, LABELS))
                found = file.read(columns=[label]).column(label)
                rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: not a Parquet file, or damaged ({str(error)[:200]})") from None
        if found.null_count:
            raise UserError(f"{path}: {label}: {found.null_count} rows have no label; remove them")
        _check_image_type(schema.field(column).type, path, column)
        names = _class_names(schema, label) or names
        labels.append(found.to_numpy())
        groups += [(at, number, count) for number, count in enumerate(rows)]
    together = np.concatenate(labels)
    if together.dtype.kind == "O":
        together, names = _numbered(together, names, paths[0])
    return together, groups, names, column


def _numbered(labels: np.ndarray, names: tuple[str, ...] | None, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels that are text as numbers; their names, sorted where the file gives no order."""
    if not all(isinstance(label, str) for label in labels):
        raise UserError(f"{path}: labels are neither whole numbers nor text")
    order = names or tuple(sorted(set(labels)))
    place = {name: number for number, name in enumerate(order)}
    unknown = next((label for label in labels if label not in place), None)
    if unknown is not None:
        raise UserError(f"{path}: the label {unknown[:60]!r} is not among the file's class names")
    return np.array([place[label] for label in labels], dtype=np.int64), order


def _column(schema: pa.Schema, kinds: tuple[str, ...], path: Path) -> str:
    found = next((kind for kind in kinds if kind in schema.names), None)
    if found is None:
        raise UserError(
            f"{path}: holds columns {', '.join(schema.names)[:300]}; needed: one called {' or '.join(kinds)}"
        )
    return found


def _check_image_type(kind: pa.DataType, path: Path, column: str) -> None:
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)):
        raise UserError(f"{path}: {column} is {str(kind)[:100]}; allowed: encoded images, as bytes or struct of bytes")


def _read_group(path: Path, number: int, column: str) -> pa.Array:
    try:
        with pq.ParquetFile(path) as file:
            found = file.read_row_group(number, columns=[column]).column(column).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({str(error)[:200]})") from None
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return found.field("bytes") if pa.types.is_struct(found.type) else found


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """What the hub's metadata call the classes; None where they say nothing that can be understood."""
    try:
        about: Any = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    fits = (
        isinstance(names, list) and names and all(isinstance(n, str) for n in names) and len(set(names)) == len(names)
    )
    return tuple(names) if fits else None
