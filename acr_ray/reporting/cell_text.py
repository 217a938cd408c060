"""How numbers and names become text, the same in every table. Radii and ACR are rounded down."""

from __future__ import annotations

import re
from collections.abc import Sequence

from acr_ray.formats.metrics import number_text
from acr_ray.smoothing.bounds import round_down

ACR_DIGITS = 4
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def acr_text(value: float) -> str:
    """ACR as shown everywhere: four decimals, rounded down."""
    return round_down(value, ACR_DIGITS)


def lower(text: str, is_lower: bool = True, is_estimate: bool = False) -> str:
    """Return a number as text that says if it is a lower value, or an estimate from a curve."""
    return f"≥ {text}" if is_lower else f"≈ {text}" if is_estimate else text


def percent_text(share: float) -> str:
    """Return a share in [0, 1] as percent with one decimal, to the nearest (radii round down, shares do not)."""
    return f"{share * 100:.1f}"


def points_text(error: float) -> str:
    """Return an error in shares as percentage points with two decimals, rounded up."""
    return f"{-float(round_down(round(-100 * error, 7), 2)):g}"


def radius_text(radius: float) -> str:
    """Return a chosen radius, exact: at least two decimals, all digits that it has, and never rounded up."""
    text = number_text(radius)
    if "e" in text or float(text) != radius:
        return round_down(radius, 6)
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


def one_line(text: str) -> str:
    """Without line breaks and control characters: names come from files and command lines."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()


def markdown_text(text: str) -> str:
    """Any text as one line of Markdown, nothing in it taken as markup."""
    text = re.sub(r"([\\|`*_\[\]#])", r"\\\1", one_line(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_lines(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a table whose first line has the titles and whose first column is set to the left."""
    told = [[markdown_text(c) for c in line] for line in lines]
    rule = ["---"] + ["---:"] * (len(told[0]) - 1)
    return ["| " + " | ".join(line) + " |" for line in (told[0], rule, *told[1:])]


def latex_text(text: str) -> str:
    """Any text as one line of LaTeX, nothing in it taken as a command; p_A becomes a formula."""
    return "".join(_LATEX.get(c, c) for c in one_line(text)).replace("p\\_A", "$p_A$").replace("<", "$<$")
