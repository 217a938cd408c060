"""The noise level in the name of a released file: the field's spellings, and nothing that could be two things."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from acr_ray.settings.errors import UserError

_NUMBER = r"\d+(?:[.p]\d+)?(?:e-?\d+)?(?![\d.p]*\d)"
#: noise_0.25, sigma_0.25, sigma-0.5, noise0.5, sigma=1.0, noise_0p25, noise_025, noise_1e-1; in any case.
NAMED = re.compile(rf"(?:noise|sigma|σ|std)[ _=-]*({_NUMBER})", re.IGNORECASE)
_LAST = re.compile(rf"_({_NUMBER})(?:\.(?:csv|tsv|txt))?$", re.IGNORECASE)
#: No released file has more noise; a whole number above it is hundredths with the point left out, or nothing known.
_MOST = 10.0


def sigma_in(where: str, last_number: bool = False) -> tuple[float, str]:
    """The noise level that a file's own name says, else the nearest of its folders that says one.

    Args:
        where: path of the file.
        last_number: whether a number at the name's end is one, too (``gaussian_0.25.csv``).

    Returns:
        sigma in input units, and the piece of the name it was read from.

    Raises:
        UserError: no name says it, one says two, or it is not clear which number is meant.
    """
    own = PurePosixPath(where).name
    for part in reversed(PurePosixPath(where).parts):
        try:
            sigmas = {_value(named[1], named[0], where): named[0] for named in NAMED.finditer(part)}
        except UserError:
            if part == own:
                raise
            continue  # a folder's name that means something else
        if len(sigmas) > 1:
            raise UserError(f"{where}: its name says sigma twice, {' and '.join(sigmas.values())}; give --sigma")
        if sigmas:
            return next(iter(sigmas.items()))
        if last_number and (number := _LAST.search(part)):
            return _value(number[1], number[0], where), number[0].lstrip("_")
        last_number = False  # of the file's own name only
    raise UserError(
        f"{where}: neither the file nor its name says which sigma this is; give --sigma, or name it as in noise_0.25 or"
        " sigma_0.25"
    )


def is_formality(name: str) -> bool:
    """Whether a file's or folder's name says nothing but a noise level or a split."""
    stem = re.sub(r"\.(tsv|csv|txt)$", "", name)
    return bool(NAMED.fullmatch(stem)) or stem.lower() in ("test", "val", "certify", "certification")


def _value(text: str, named: str, where: str) -> float:
    """0.25 of ``0.25``, ``0p25``, ``025`` (a leading zero: the point was left out) and ``25e-2``."""
    text = text.lower().replace("p", ".")
    if re.fullmatch(r"0\d+", text):
        text = f"0.{text[1:]}"
    try:
        value = float(text)
    except (ValueError, OverflowError):
        value = 0.0
    if not 0 < value <= _MOST:
        raise UserError(f"{where}: {named.strip('_')} in its name is no sigma from 0 to {_MOST:g}; give --sigma")
    return value
