"""What all settings share: frozen, typed, strict about names, and able to say their ranges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from acr_ray.settings.errors import UserError


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
        """A copy with dotted fields replaced, e.g. ``{"discard.p_t": 0.4}``, validated as a whole."""
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
        """Every value by its dotted name, in order of declaration."""
        found: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Settings):
                found |= {f"{name}.{inner}": v for inner, v in value.flat().items()}
            else:
                found[name] = value
        return found


def digest(values: Any) -> str:
    """SHA-256 (hex) of JSON-like values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def field_of(cls: type[Settings] | Settings, dotted: str) -> FieldInfo | None:
    """The declaration behind a dotted name; given an instance, looks into the sections it really holds."""
    head, _, rest = dotted.partition(".")
    owner = cls if isinstance(cls, type) else type(cls)
    info = owner.model_fields.get(head)
    if info is None or not rest:
        return info
    inner = getattr(cls, head) if isinstance(cls, Settings) else info.annotation
    if isinstance(inner, Settings) or (isinstance(inner, type) and issubclass(inner, Settings)):
        return field_of(inner, rest)
    return None


def type_text(info: FieldInfo) -> str:
    """A field's type in a user's words, e.g. ``number``, ``whole number``, ``l2|linf``."""
    return _type_text(info.annotation)


def _type_text(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"{_type_text(get_args(kind)[0])},…"
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if arguments and get_origin(kind) is not Literal:
        text = "|".join(_type_text(a) for a in arguments)
        return f"{text}|none" if type(None) in get_args(kind) else text
    return {bool: "true|false", int: "whole number", float: "number", str: "text"}.get(kind, str(kind))


def range_text(info: FieldInfo) -> str:
    """The allowed range of a numeric field, e.g. ``> 0`` or ``0 to 1``; empty where there is none."""
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
    """Option text to a value for pydantic: ``none``, comma lists; numbers and booleans are pydantic's work."""
    kind = info.annotation
    options = get_args(kind) if get_origin(kind) in (Union, type(int | None)) else (kind,)
    if type(None) in options and text.lower() == "none":
        return None
    if any(get_origin(o) is tuple for o in options):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _first_problem(cls: type[Settings], error: ValidationError, source: str) -> str:
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "extra_forbidden":
        *path, last = [str(part) for part in problem["loc"]]
        owner = field_of(cls, ".".join(path)) if path else None
        known = owner.annotation.model_fields if owner and hasattr(owner.annotation, "model_fields") else {}
        known = known or (cls.model_fields if not path else {})
        hint = f"; known fields: {', '.join(known)}" if known else ""
        return f"{source}: unknown field {'.'.join([*path, last])}{hint}"
    if problem["type"] == "value_error" and not problem["loc"]:
        return f"{source}: {problem['ctx']['error']}"
    dotted = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
    info = field_of(cls, dotted)
    allowed = " ".join(part for part in (type_text(info), range_text(info)) if part) if info else ""
    value = problem["input"]
    shown = "nothing" if problem["type"] == "missing" else repr(value) if not _huge(value) else "(long value)"
    said = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"].lower()
    return f"{source}: {dotted} = {shown}: {said}" + (f"; allowed: {allowed}" if allowed else "")


def _huge(value: Any) -> bool:
    return len(repr(value)) > 120
