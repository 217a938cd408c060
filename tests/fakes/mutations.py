"""Files spoilt in many ways: bytes of any file, values of JSON, columns of tables; by a generator."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**64), 10**30, 10**400, 0.5, -0.5, 1e-300, 1e30, 1e308,
    float("inf"), float("-inf"), float("nan"), "", "x", "0", "../../x", "/dev/zero", "s3://x/y", "\0", "\ud800",
    "é" * 50, "9" * 5000, "a" * 100_000, [], [[]], {}, {"a": 1}, [None] * 1000, [1e6] * 300, {"x": {"y": {"z": []}}},
]  # fmt: skip
ODD_COLUMNS = [
    pa.array([None] * 3), pa.array([1e30, -1.0, 0.0]), pa.array([float("nan")] * 3), pa.array([float("inf"), 1, 2]),
    pa.array([-1, -2, -3]), pa.array([2**62] * 3), pa.array([2**63, 2**64 - 1, 0], pa.uint64()), pa.array([0, 0, 0]),
    pa.array(["", "x", "x"]), pa.array(["../x", "\0", "é"]), pa.array([b"\xff", b"", b"x"]), pa.array([True] * 3),
    pa.array([[1], [], [2]]), pa.array([{"a": 1}] * 3), pa.array([1, 2, 3], pa.date32()),
    pa.array(["a", "b", "a"]).dictionary_encode(), pa.array([10**20] * 3, pa.decimal128(30)), pa.array([1e6, 1e6, 1e6]),
    pa.array([1e-320] * 3), pa.array([[[[1]]]] * 3), pa.array(["certified"] * 3), pa.array([1.5, 2.5, 3.5]),
]  # fmt: skip


def spoil_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Flipped, cut, repeated, emptied, or with something put in."""
    found, size = bytearray(content), len(content)
    kind = rng.integers(8)
    at = int(rng.integers(max(size, 1)))
    if kind == 0:
        return bytes(found[:at])
    if kind == 1:
        return bytes(found[at:])
    if kind == 2:
        return bytes(found[:at] + found[at : at + 50] * int(rng.integers(2, 200)) + found[at:])
    if kind == 3:
        return bytes([b"", b"\0" * 1000, b"\x80\x04.", b"[" * 5000, b"PAR1", b"\xff\xfe", b"\n" * 100][rng.integers(7)])
    if kind == 4:
        return bytes(found[:at] + rng.bytes(int(rng.integers(1, 40))) + found[at:])
    for _ in range(int(rng.integers(1, 6)) if size else 0):
        place = int(rng.integers(size))
        found[place] = int(rng.integers(256)) if kind < 7 else found[place] ^ (1 << int(rng.integers(8)))
    return bytes(found)


def spoil_json(content: bytes, rng: np.random.Generator) -> bytes:
    """One value, key or level replaced; of lines, those of one line."""
    lines = content.decode().splitlines() if content.count(b"\n") > 1 and content[:1] == b"{" else None
    if lines and all(line.startswith("{") and line.endswith("}") for line in lines):
        at = int(rng.integers(len(lines)))
        lines[at] = _spoil_document(lines[at], rng)
        return ("\n".join(lines) + "\n").encode(errors="surrogatepass")
    return _spoil_document(content.decode(), rng).encode(errors="surrogatepass")


def _spoil_document(text: str, rng: np.random.Generator) -> str:
    value = json.loads(text)
    places = list(_places(value))
    kind = rng.integers(10)
    odd = copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
    if kind == 0 or not places:
        return _written(odd)
    owner, key = places[rng.integers(len(places))]
    if kind == 1:
        del owner[key]
    elif kind == 2 and isinstance(owner, dict):
        owner[str(odd)[:50]] = owner.pop(key)
    elif kind == 3:
        deep: Any = odd
        for _ in range(int(rng.integers(2, 900))):
            deep = [deep]
        owner[key] = deep
    elif kind == 4 and isinstance(owner, dict):
        inner = _written(owner[key])
        return _written(value).replace("{", "{" + f"{json.dumps(key)}: {inner}, ", 1)
    else:
        owner[key] = odd
    return _written(value)


def _written(value: Any) -> str:
    import sys

    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value)
    finally:
        sys.set_int_max_str_digits(before)


def _places(value: Any):
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def spoil_table(content: bytes, rng: np.random.Generator) -> bytes:
    """A column of other values or another type, missing, twice, or empty; other metadata; no rows, or very many."""
    table = pq.read_table(pa.BufferReader(content))
    kind, at = rng.integers(10), int(rng.integers(table.num_columns))
    name = table.column_names[at]
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.append_column(name, table[name])
    elif kind == 2:
        table = table.slice(0, 0)
    elif kind == 3:
        odd = _written(ODD_VALUES[rng.integers(len(ODD_VALUES))]).encode()
        keys = list(table.schema.metadata or {}) or [b"acr_ray.summary"]
        deep = b"[" * 3000 if rng.integers(3) == 0 else b'{"n": %s, "planned_images": %s}' % (odd, odd)
        table = table.replace_schema_metadata({keys[rng.integers(len(keys))]: deep})
    elif kind == 4:
        table = pa.concat_tables([table] * int(rng.integers(2, 5)))
    else:
        odd = ODD_COLUMNS[rng.integers(len(ODD_COLUMNS))]
        values = pa.array(odd.to_pylist() * -(-table.num_rows // 3), odd.type)[: table.num_rows]
        table = table.set_column(at, name, values)
    stream = BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()
