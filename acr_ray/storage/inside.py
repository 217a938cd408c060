"""Relative names that others chose (a store's listing, a pack, a tracking server) must not lead anywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from acr_ray.settings.errors import UserError

# Absolute, drive-like or Windows' separators, empty parts, "." and "..", control characters.
_UNSAFE = re.compile(r"^(?:[A-Za-z]:|/|$)|\\|[\x00-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")
_UNSAFE_LINE = re.compile(_UNSAFE.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"), re.MULTILINE)


def check_name(name: object, where: str) -> str:
    """The name, if it is a relative path that stays below whatever it is joined to.

    Args:
        name: parts with ``/`` between.
        where: who gave the name, for the message.

    Raises:
        UserError: ``..``, ``.`` or an empty part, an absolute or drive-like name, a backslash or a control character.
    """
    if not isinstance(name, str) or _UNSAFE.search(name):
        raise UserError(f"{where}: names a file {str(name)[:80]!r}, which does not stay inside its folder; refused")
    return name


def check_names(names: Iterable[str], where: str) -> None:
    """The same for many names in one pass. Raises UserError for the first that is refused."""
    names = list(names)
    if any("\n" in name for name in names) or _UNSAFE_LINE.search("\n".join(names)):
        for name in names:
            check_name(name, where)


def inside(folder: Path, name: str, where: str) -> Path:
    """``folder / name``, for writing: also no link on the way leads out of the folder.

    Raises:
        UserError: as `check_name`; or a link leads out.
    """
    place, home = folder / check_name(name, where), folder.resolve()
    if not place.parent.resolve().is_relative_to(home) or place.is_symlink():
        raise UserError(f"{where}: {name!r} leads through a link out of {folder}; refused")
    return place
