"""The one reader of JSON, YAML and plain files: whatever a file holds, it is read right or refused in one line."""

from __future__ import annotations

import itertools
import json
import os
import stat
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from yaml.composer import Composer

from acr_ray.settings.errors import UserError

MOST_BYTES = 64 * 2**20  # of a file that is parsed; far beyond any that this package writes, but for packs
MOST_LEVELS = 40  # of lists and objects in one another
MOST_VALUES = 200_000  # of a YAML file with its anchors written out

_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}


def read_file(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Return the content of a regular file, also behind links; never waits for a pipe, never reads a device.

    Args:
        path: of the file.
        most: bytes; None: as many as there are.

    Raises:
        OSError: it is missing or can't be read.
        UserError: it is no regular file, or larger than ``most``.
    """
    _check_regular(os.stat(path), path)  # before it is opened: a tape would rewind
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as stream:
        about = os.fstat(stream.fileno())
        _check_regular(about, path)
        if most is not None and about.st_size > most:
            raise UserError(too_large(path, about.st_size, most))
        return stream.read(-1 if most is None else most + 1)


def regular_size(path: str | os.PathLike[str]) -> int:
    """Return the bytes of a regular file, which is not opened. Raises as `read_file`."""
    about = os.stat(path)
    _check_regular(about, path)
    return about.st_size


def _check_regular(about: os.stat_result, path: object) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = next((text for is_kind, text in _KINDS.items() if is_kind(about.st_mode)), "something else")
        raise UserError(f"{path}: is {kind}; a regular file is needed")


def too_large(path: object, size: int, most: int) -> str:
    return f"{path}: has {size:,} bytes; at most {most:,} are read"


def read_text(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """Return the same as text in UTF-8. Raises UserError also if it is no text."""
    return decoded(read_file(path, most), path)


def decoded(content: bytes, where: object) -> str:
    """UTF-8 as text, without a byte order mark. Raises UserError if it is something else."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not text in UTF-8 ({error.reason} at byte {error.start})") from None


def parse_json(text: str, where: object, most_levels: int = MOST_LEVELS) -> Any:
    """Return a JSON document.

    Raises:
        UserError: not JSON, a key that stands twice in one object, or lists and objects nested too deep.
    """
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        raise UserError(f"{where}: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deep; at most {most_levels} levels are read") from None
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error})") from None
    _check_levels(document, where, most_levels, None)
    if "\\u" in text:
        _check_text(document, where)
    return document


def parse_names(text: str, where: object) -> Any:
    """The same of YAML in which every value is text: ``01`` and ``no`` are names there, no number and no truth."""
    return parse_yaml(text, where, _TextLoader)


def parse_yaml(text: str, where: object, loader: type | None = None) -> Any:
    """Return a YAML document of plain values.

    Raises:
        UserError: not YAML, a key that stands twice in one mapping, tags other than YAML's own plain ones, nested too
            deep, or anchors that multiply.
    """
    try:
        document = yaml.load(text, loader or _StrictLoader)  # noqa: S506 - a SafeLoader
    except _Twice as error:
        raise UserError(f"{where}: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deep; at most {MOST_LEVELS} levels are read") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise UserError(f"{where}: not valid YAML ({str(error)[:300]})") from None
    _check_levels(document, where, MOST_LEVELS, MOST_VALUES)
    _check_text(document, where)
    return document


def check(schema: Any, value: Any, where: object) -> Any:
    """Return the value as its schema has it.

    Args:
        schema: a pydantic model, or any type that pydantic knows; or a `TypeAdapter` of one.
        value: plain values, as parsed.
        where: the file, for the message.

    Raises:
        UserError: names the file, the first field that is wrong, and what is wrong with it.
    """
    adapter = schema if isinstance(schema, TypeAdapter) else TypeAdapter(schema)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))[:100]
        shown = "" if problem["type"] == "missing" else f" = {_short(problem['input'])}"
        reason = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {place or 'content'}{shown}: {reason[:1].lower()}{reason[1:]}") from None


def check_version(value: Any, where: object, version: int = 1) -> dict[str, Any]:
    """Return an object of this ``schema_version``. Raises UserError if it is something else, or of another version."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: {_short(value)}: should be an object with a schema_version")
    version_held = value.get("schema_version")
    if type(version_held) is not int or version_held != version:  # true is an int, too
        raise UserError(f"{where}: schema_version {_short(version_held)}; this version reads {version}")
    return value


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        return "(long value)"
    return text if len(text) <= 60 else "(long value)"


class _Twice(Exception):
    """A key stands twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Twice(f"{twice[:80]!r} stands twice in one object; keep one")
    return values


class _NoKeyTwice(Composer):
    """What both loaders add to PyYAML's."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:  # as written: merge keys are not written out yet
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in seen:
                    before = seen[key.tag, key.value]
                    raise _Twice(f"line {line}: {key.value[:80]!r} stands twice (before on line {before}); keep one")
                seen[key.tag, key.value] = line
        return node


class _StrictLoader(_NoKeyTwice, yaml.SafeLoader):
    """Plain values only, and no key twice."""


class _TextLoader(_NoKeyTwice, yaml.BaseLoader):
    """Text only, and no key twice."""


def _check_text(value: Any, where: object) -> None:
    """Half a character, which an escape can write and nothing can store, is refused where it comes in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key, where)
            _check_text(inner, where)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner, where)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: text that is not Unicode ({error.object[error.start]!r})") from None


def _check_levels(value: Any, where: object, most_levels: int, most_values: int | None) -> None:
    # Level by level and no further than allowed: neither depth nor anchors that hold themselves exhaust anything.
    level, depth, left = [value], 0, most_values
    while level:
        below = itertools.chain.from_iterable(
            outer.values() if isinstance(outer, dict) else outer for outer in level if isinstance(outer, (dict, list))
        )
        level, depth = list(below if left is None else itertools.islice(below, left + 1)), depth + 1
        if left is not None and len(level) > left:
            raise UserError(f"{where}: holds more than {most_values:,} values with its anchors written out")
        left = None if left is None else left - len(level)
        if level and depth >= most_levels:
            raise UserError(f"{where}: nested too deep; at most {most_levels} levels are read")
