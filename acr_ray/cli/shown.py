"""How results look in a notebook: small tables, every text escaped, and figures. Loads nothing large by itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

FIGURES = ("certified_accuracy", "p_a")
DPI = 160


def html_table(title: str, rows: Sequence[Sequence[object]], head: Sequence[object] = (), note: str = "") -> str:
    """Return a small HTML table.

    Args:
        title: above it.
        rows: of cells; the first of each names the row.
        head: names of columns.
        note: below it.
    """
    names = "".join(f'<th style="text-align: left">{escape(str(cell))}</th>' for cell in head)
    lines = [f"<tr>{names}</tr>"] if head else []
    for first, *rest in rows:
        cells = "".join(f'<td style="text-align: left">{escape(str(cell))}</td>' for cell in rest)
        lines.append(f'<tr><th style="text-align: left">{escape(str(first))}</th>{cells}</tr>')
    below = f"<p><small>{escape(note)}</small></p>" if note else ""
    return f"<div><strong>{escape(title)}</strong><table>{''.join(lines)}</table>{below}</div>"


class Plot:
    """A figure that a notebook shows.

    Attributes:
        figure: matplotlib's, to change.
    """

    def __init__(self, figure: Any) -> None:
        self.figure = figure

    def save(self, path: str | Path) -> None:
        """Write it to a file; its ending says the kind (``.png``, ``.svg``, ``.pdf``)."""
        self.figure.savefig(path, dpi=DPI)

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        stream = BytesIO()
        self.figure.savefig(stream, format="png", dpi=DPI)
        return stream.getvalue()
