"""What all settings share: frozen, typed, strict about names, and able to say their ranges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo

from acr_ray.settings.documents import parse_json
from acr_ray.settings.errors import UserError


@dataclass(frozen=True)
class Words:
    """A field's type in a user's words, beside the type in its annotation."""

    text: str


class Settings(BaseModel):
    """Base of every settings class: immutable, unknown names refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def build(cls, values: Mapping[str, Any], source: str = "settings") -> Self:
        """Validate nested values. Raises UserError naming source, field, value and allowed range."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(_first_problem(cls, error, source)) from None

    def change(self, changes: Mapping[str, Any], source: str = "settings") -> Self:
        """Return a copy with dotted fields replaced, e.g. ``{"discard.p_t": 0.4}``, validated as a whole."""
        values = self.model_dump()
        for dotted, value in changes.items():
            *path, last = dotted.split(".")
            level: Any = values
            for part in path:
                level = level.get(part) if isinstance(level, dict) else None
            if not isinstance(level, dict) or last not in level:
                raise UserError(f"{source}: unknown field {dotted}; fields: {', '.join(self.flat())}")
            level[last] = value
        return type(self).build(values, source)

    def flat(self) -> dict[str, Any]:
        """Return every value by its dotted name, in order of declaration."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Settings):
                values |= {f"{name}.{inner}": v for inner, v in value.flat().items()}
            else:
                values[name] = value
        return values


def digest(values: Any) -> str:
    """SHA-256 (hex) of JSON-like values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def field_of(cls: type[Settings] | Settings, dotted: str) -> FieldInfo:
    """Return the declaration behind a dotted name; given an instance, looks into the sections it really holds.

    Given a class, a name inside a section of several kinds is the first kind's that has it.

    Raises:
        KeyError: there is no such field.
    """
    if (info := _find(cls, dotted)) is None:
        raise KeyError(dotted)
    return info


def _find(cls: type[Settings] | Settings, dotted: str) -> FieldInfo | None:
    head, _, rest = dotted.partition(".")
    owner = cls if isinstance(cls, type) else type(cls)
    info = owner.model_fields.get(head)
    if info is None or not rest:
        return info
    sections = [getattr(cls, head)] if isinstance(cls, Settings) else _sections(info).values()
    return next((found for inner in sections if (found := _find(inner, rest))), None)


def _sections(info: FieldInfo) -> dict[str, type[Settings]]:
    """Return the settings classes that a field may hold: one, or those of a tagged union by their tags."""
    if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
        return {"": info.annotation}
    return {
        entry.tag: get_args(option)[0]
        for option in get_args(info.annotation)
        if get_origin(option) is Annotated
        for entry in option.__metadata__
        if isinstance(entry, Tag)
    }


def _kinds(info: FieldInfo) -> set[Any]:
    """Return the types of a field's values but for none: ``{int}`` of ``int | None``."""
    kind = info.annotation
    return ({*get_args(kind)} if get_origin(kind) in (Union, type(int | None)) else {kind}) - {type(None)}


def is_whole(info: FieldInfo) -> bool:
    """Return whether a field holds whole numbers, also if it may be none."""
    return _kinds(info) == {int}


def is_number(info: FieldInfo) -> bool:
    """Return whether a field holds numbers, also if it may be none."""
    return _kinds(info) <= {int, float}


def type_text(info: FieldInfo) -> str:
    """Return a field's type in a user's words, e.g. ``number``, ``whole number``, ``l2|linf``."""
    words = next((entry.text for entry in info.metadata if isinstance(entry, Words)), None)
    return _type_text(info.annotation) if words is None else words


def _type_text(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _type_text(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"{_type_text(get_args(kind)[0])},…"
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if arguments and get_origin(kind) is not dict:
        text = "|".join(_type_text(a) for a in arguments)
        return f"{text}|none" if type(None) in get_args(kind) else text
    names = {bool: "true|false", int: "whole number", float: "number", str: "text", dict: "JSON object"}
    return names.get(get_origin(kind) or kind, str(kind))


def range_text(info: FieldInfo) -> str:
    """Return the allowed range of a numeric field, e.g. ``> 0`` or ``0 to 1``; empty if there is none."""
    limits: dict[str, Any] = {}
    for entry in info.metadata:
        for name in ("gt", "ge", "lt", "le"):
            if getattr(entry, name, None) is not None:
                limits[name] = getattr(entry, name)
    if "ge" in limits and "le" in limits:
        return f"{limits['ge']} to {limits['le']}"
    if "gt" in limits and "lt" in limits:
        return f"between {limits['gt']} and {limits['lt']}, both excluded"
    words = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return " and ".join(f"{words[name]} {value}" for name, value in limits.items())


def parse(info: FieldInfo, text: str) -> Any:
    """Option text to a value for pydantic: ``none``, comma lists, JSON; numbers and booleans are pydantic's work."""
    options = _kinds(info)
    if type(None) in get_args(info.annotation) and text.lower() == "none":
        return None
    if any(get_origin(o) is tuple for o in options):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if any(get_origin(o) is dict for o in options):
        try:
            return parse_json(text, text[:60])
        except UserError as error:
            if "stands twice" in str(error):
                raise
            return text  # pydantic says what is wrong with it
    return text


def _first_problem(cls: type[Settings], error: ValidationError, source: str) -> str:
    problem = error.errors(include_url=False)[0]
    path, owner, info = _locate(cls, problem["loc"])
    dotted = ".".join(path)
    if problem["type"] == "extra_forbidden":
        hint = f"; known fields: {', '.join(owner.model_fields)}" if owner else ""
        return f"{source}: unknown field {dotted}{hint}"
    if problem["type"] == "value_error" and not problem["loc"]:
        return f"{source}: {problem['ctx']['error']}"
    allowed = ""
    if info is not None and not _sections(info):
        allowed = " ".join(part for part in (type_text(info), range_text(info)) if part)
    value = problem["input"]
    shown = "nothing" if problem["type"] == "missing" else repr(value) if not _huge(value) else "(long value)"
    reason = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"].lower()
    return f"{source}: {dotted} = {shown}: {reason}" + (f"; allowed: {allowed}" if allowed else "")


def _locate(
    cls: type[Settings], places: tuple[str | int, ...]
) -> tuple[list[str], type[Settings] | None, FieldInfo | None]:
    """pydantic's path to a problem as our names (tags of unions and indices left out), the class and field there."""
    path: list[str] = []
    owner: type[Settings] | None = cls
    info: FieldInfo | None = None
    sections: dict[str, type[Settings]] = {}
    for place in places:
        if place in sections:
            owner, sections = sections[str(place)], {}
            continue
        if isinstance(place, int):
            continue
        path.append(place)
        info = owner.model_fields.get(place) if owner else None
        sections = _sections(info) if info else {}
        owner = sections.get("") if info else owner
    return path, owner, info


def _huge(value: Any) -> bool:
    return len(repr(value)) > 120
