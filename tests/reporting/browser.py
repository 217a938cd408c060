"""Renders a page in headless Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def rendered(page: Path, tmp_path: Path, before: str = "") -> str:
    """The page's DOM once its scripts have run; skips where there is no Chromium.

    Args:
        before: JavaScript that is run after the page's own, to act as a user would.
    """
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("needs headless Chromium (apt-get install chromium)")
    shown = page
    if before:
        shown = tmp_path / f"acted-{page.name}"
        shown.write_text(page.read_text().replace("</body>", f"<script>{before}</script></body>"))
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,1000", "--virtual-time-budget=5000"]
    command += ["--dump-dom", shown.as_uri()]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        return started.communicate(timeout=120)[0]
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)


def framed(page: Path, tmp_path: Path, width: int, probe: str = "0") -> Path:
    """A page with ``page`` in a frame of a phone's width: headless windows are never that narrow.

    Once loaded, the outer page's ``data-overflow`` tells by how many pixels the inner one is too wide, and
    ``data-probe`` the value of a JavaScript expression of the inner ``doc``.
    """
    outer = tmp_path / f"framed-{width}.html"
    outer.write_text(
        f'<!doctype html><html><body style="margin:0"><iframe id="f" style="border:0;width:{width}px;height:3000px" '
        f'srcdoc="{escape(page.read_text(), quote=True)}"></iframe><script>f.onload = () => setTimeout(() => {{'
        "const inner = f.contentDocument.documentElement;"
        "document.documentElement.dataset.overflow = inner.scrollWidth - inner.clientWidth;"
        f"const doc = f.contentDocument; document.documentElement.dataset.probe = {probe};"
        "}, 500)</script></body></html>"
    )
    return outer


class Cells(HTMLParser):
    """The comparison table's cells: ``rows[name]`` is a list of (field, radius, exact value, text)."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.rows: dict[str, list[tuple[str, str | None, float, str]]] = {}
        self._row: str | None = None
        self._open: dict[str, str | None] | None = None
        self._text = ""
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        if tag == "tr":
            self._row = held.get("data-name")
            if self._row is not None:
                self.rows[self._row] = []
        elif tag == "td" and self._row is not None:
            self._open, self._text = held, ""
        elif tag == "small" and self._open is not None:
            self._text += "\n"

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "td" and self._open is not None and self._row is not None:
            held = self._open
            cell = (held["data-field"], held.get("data-radius"), float(held["data-value"]), self._text.split("\n")[0])
            self.rows[self._row].append(cell)
            self._open = None
