"""Log lines of workers and samplers that say whose they are: run, rank, image."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

NAME = "acr_ray"


class _Named(logging.LoggerAdapter):
    def process(self, message: Any, options: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        return f"{' '.join(f'{k}={v}' for k, v in (self.extra or {}).items())}: {message}", options


class _Stderr(logging.StreamHandler):
    """Writes to what standard error is at the time; whoever runs us may put another in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def logger(**names: Any) -> logging.LoggerAdapter:
    """Return a logger whose lines begin with these names, such as ``run=digits rank=1``.

    Lines go to standard error: Ray keeps it as the worker's log file, which the dashboard and ``ray logs`` show, and
    passes it on to a driver with ``--verbose``.
    """
    parent = logging.getLogger(NAME)
    if not parent.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        parent.addHandler(handler)
        parent.setLevel(logging.INFO)
        parent.propagate = False
    return _Named(parent, names)
