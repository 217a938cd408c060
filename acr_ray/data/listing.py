"""Which files of a class folder are images: all that can be read, subfolders too; the others are counted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from acr_ray.settings import UserError

ENDINGS = (
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".webp", ".tif", ".tiff",
    ".gif",
)  # fmt: skip
#: First bytes of such files, for those without an ending.
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", *(b"P%d" % n for n in range(1, 7)))
NOT_AN_IMAGE, NOT_REGULAR, NO_TEXT, LOOSE = (
    "not an image's ending",
    "not a regular file",
    "its name is not UTF-8",
    "not in a class folder",
)
MOST_DEEP = 20  # subfolders in one another

LeftOut = Counter[tuple[str, str]]  # files by (ending, reason)


def image_files(folder: Path, left_out: LeftOut) -> list[str]:
    """Names relative to a class folder, sorted; what is no image is added to ``left_out``. Hidden files don't count.

    Raises:
        UserError: a folder that cannot be read, or links that go round.
    """
    found: list[str] = []
    _walk(folder, "", 0, found, left_out)
    return sorted(found)


def _walk(folder: Path, below: str, depth: int, found: list[str], left_out: LeftOut) -> None:
    if depth > MOST_DEEP:
        raise UserError(f"{folder / below}: folders nested deeper than {MOST_DEEP}, or links that go round")
    try:
        with os.scandir(folder / below) as entries:
            listed = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder / below}: cannot be read ({error.strerror})") from None
    for entry in listed:
        name = f"{below}{entry.name}"
        if not entry.name.isprintable() and not _is_text(entry.name):
            left_out[_ending(entry.name), NO_TEXT] += 1
        elif entry.is_dir():
            _walk(folder, f"{name}/", depth + 1, found, left_out)
        elif not entry.is_file() and not _is_dangling(entry):  # a link to nowhere is named when it is read
            left_out[_ending(entry.name), NOT_REGULAR] += 1
        elif _is_image(entry):
            found.append(name)
        else:
            left_out[_ending(entry.name), NOT_AN_IMAGE] += 1


def loose_files(folder: Path, left_out: LeftOut) -> None:
    """Count the files that lie beside class folders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and not entry.is_dir():
                left_out[_ending(entry.name), LOOSE] += 1


def remark(where: object, left_out: LeftOut) -> str | None:
    """One line about what was left out; None where nothing was."""
    if not left_out:
        return None
    parts = [f"{count:,} {ending} ({reason})" for (ending, reason), count in sorted(left_out.items())]
    shown = "; ".join(parts[:8]) + (f"; and {len(parts) - 8} kinds more" if len(parts) > 8 else "")
    return f"{where}: {sum(left_out.values()):,} files are left out: {shown}"


def _is_image(entry: os.DirEntry[str]) -> bool:
    ending = os.path.splitext(entry.name)[1].lower()
    if ending or _is_dangling(entry):
        return ending in ENDINGS
    try:
        with open(entry.path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as stream:
            start = stream.read(12)
    except OSError:
        return False
    return start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _ending(name: str) -> str:
    ending = os.path.splitext(name)[1][:20]
    return ending if ending.isprintable() and ending else "without an ending"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
