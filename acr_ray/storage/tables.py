"""The one reader of Parquet tables: columns, types and sizes are checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acr_ray.formats.tables import VERSION
from acr_ray.settings.documents import decoded, parse_json
from acr_ray.settings.errors import UserError

MOST_ROWS = 20_000_000  # ten times ImageNet's training set, in 1.28 million rows for each of its estimates
MOST_BYTES = 4 * 2**30  # of the text of a column
MOST_METADATA = 2**20  # bytes of an entry

_TYPES = {"whole": pa.int64(), "number": pa.float64(), "text": pa.string(), "flag": pa.bool_()}
_FITS = {
    "whole": lambda kind: pa.types.is_integer(kind),
    "number": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "flag": lambda kind: pa.types.is_boolean(kind),
}


def read_table(
    content: bytes,
    columns: Mapping[str, str],
    where: object,
    *,
    optional: Mapping[str, str] | None = None,
    what: str = "table",
    repeated: Collection[str] = (),
) -> pa.Table:
    """Some columns of a Parquet file, without empty values, as int64, float64, string or bool.

    Args:
        content: the whole file.
        columns: name to kind, ``whole``, ``number``, ``text`` or ``flag``.
        where: the file, for messages.
        optional: columns that are read if they are there.
        what: the file should be, for messages.
        repeated: text columns with few values, which stay dictionaries of them.

    Returns:
        The columns in their order, with the file's metadata; lists and other columns are never read.

    Raises:
        UserError: no Parquet file, a column is missing, of another type or has empty values (names the row from 0),
            or there is more than `MOST_ROWS` or `MOST_BYTES` of it.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        schema, about = file.schema_arrow, file.metadata
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise UserError(f"{where}: column {', '.join(missing)} is missing; this is no {what}")
        kinds = {**columns, **{name: kind for name, kind in (optional or {}).items() if name in schema.names}}
        for name, kind in kinds.items():
            if schema.names.count(name) > 1:
                raise UserError(f"{where}: has {schema.names.count(name)} columns {name}")
            arrow_type = schema.field(name).type
            arrow_type = arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type
            if not _FITS[kind](arrow_type):
                raise UserError(f"{where}: column {name} holds {str(arrow_type)[:60]}, not {_words(kind)}")
        if about.num_rows > MOST_ROWS:
            raise UserError(f"{where}: has {about.num_rows:,} rows; at most {MOST_ROWS:,} are read")
        # Sizes by column stand in the file as well, but pyarrow ends the process if those are damaged.
        # Text as a dictionary: a value that a few bytes repeat for every row is not written out before it is weighed.
        text = [name for name, kind in kinds.items() if kind == "text"]
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=text)
        table = file.read(columns=list(kinds), use_threads=False)
        table.validate(full=True)  # text in UTF-8, offsets and places in dictionaries within what is there
        for name in text:
            if _text_bytes(table[name]) > MOST_BYTES:
                raise UserError(f"{where}: the text in column {name} takes more than {MOST_BYTES:,} bytes")
        arrays = [_plain(table[name], name, kind, where, name in repeated) for name, kind in kinds.items()]
    except UserError:
        raise
    # Whatever a broken file makes of the library's insides, the file is what is wrong.
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, KeyError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: cannot be read as Parquet, is the file cut off? ({reason})") from None
    return pa.table(dict(zip(kinds, arrays, strict=True))).replace_schema_metadata(schema.metadata or {})


def check_table_version(table: pa.Table, version: int, where: object) -> None:
    """Raises UserError if the table says that it is of another version; one made elsewhere need not say any."""
    stored = (table.schema.metadata or {}).get(VERSION.encode())
    if stored is not None and decoded(stored[:40], where) != str(version):
        raise UserError(f"{where}: schema version {decoded(stored[:40], where)}, this release reads {version}")


def table_metadata(table: pa.Table, name: str, where: object) -> Any:
    """Return what a table's metadata say under a name of `acr_ray.formats.tables`; None if they say nothing.

    Raises:
        UserError: it is too long, or not JSON.
    """
    stored = (table.schema.metadata or {}).get(name.encode())
    if not stored:
        return None
    about = f"{where}: its {name}"
    if len(stored) > MOST_METADATA:
        raise UserError(f"{about} has {len(stored):,} bytes")
    return parse_json(decoded(stored, about), about)


def _plain(values: pa.ChunkedArray, name: str, kind: str, where: object, stays: bool) -> pa.ChunkedArray:
    if values.null_count:
        raise UserError(f"{where} row {pc.index(pc.is_null(values), True).as_py()}: {name} is empty")
    try:
        return values if stays and pa.types.is_dictionary(values.type) else values.cast(_TYPES[kind])
    except pa.ArrowInvalid as error:
        raise UserError(f"{where}: column {name} holds something other than {_words(kind)} ({error})") from None


def _words(kind: str) -> str:
    return {"whole": "whole numbers", "number": "numbers", "text": "text", "flag": "true or false"}[kind]


def _text_bytes(values: pa.ChunkedArray) -> int:
    if not pa.types.is_dictionary(values.type):
        return values.nbytes
    lengths = [
        pc.sum(pc.take(pc.binary_length(chunk.dictionary).cast(pa.int64()), chunk.indices)).as_py() or 0
        for chunk in values.chunks
    ]
    return sum(lengths)
