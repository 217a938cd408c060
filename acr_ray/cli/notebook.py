"""Progress in a notebook: one bar that moves, where lines would fill the page. Elsewhere the lines of `progress`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

from acr_ray.cli.progress import CertifyLines, EpochLines, certify_text
from acr_ray.settings import Recipe

SECONDS = 0.5  # between two moves of a bar


def displays() -> Callable[..., Any] | None:
    """Return IPython's ``display`` if this process is a notebook's kernel; None anywhere else. Imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):  # a terminal's IPython shows lines well
        return None
    return ipython.display.display  # type: ignore[union-attr]  # it is there, as just seen


class Bar:
    """A bar in a notebook's output, moved by showing HTML in its place.

    Args:
        display: IPython's.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display, self._handle, self._moved = display, None, 0.0

    def move(self, share: float, text: str) -> None:
        """Show how much is done, in [0, 1], and a line; moves in between are left out."""
        now = time.monotonic()
        if self._handle is not None and now - self._moved < SECONDS and share < 1:
            return
        self._moved = now
        shown = _Html(
            f'<progress value="{min(max(share, 0.0), 1.0):.4f}" max="1" style="width: 20em; vertical-align: middle">'
            f"</progress> <code>{escape(text)}</code>"
        )
        if self._handle is None:
            self._handle = self._display(shown, display_id=True)
        else:
            self._handle.update(shown)


class _Html:
    """What IPython shows as HTML, and as text where it cannot."""

    def __init__(self, html: str) -> None:
        self.html = html

    def _repr_html_(self) -> str:
        return self.html


def certify_progress() -> Callable[[Any], None]:
    """Return what shows how far a certification is."""
    display = displays()
    if display is None:
        return CertifyLines()
    bar = Bar(display)

    def show(progress: Any) -> None:
        if progress.rate or progress.images_done == progress.images:
            planned = progress.noise_draws_planned
            by_draws = progress.noise_draws / planned if planned else 0.0
            share = 1.0 if progress.images_done == progress.images else max(by_draws, 0.0)
            bar.move(share, certify_text(progress))

    return show


def epoch_progress(recipe: Recipe) -> Callable[[dict[str, Any]], None]:
    """Return what shows how far a training is."""
    display = displays()
    if display is None:
        return EpochLines(recipe)
    bar, lines = Bar(display), EpochLines(recipe)

    def show(record: dict[str, Any]) -> None:
        bar.move((record["epoch"] + 1) / recipe.training.epochs, lines.text(record))

    return show
