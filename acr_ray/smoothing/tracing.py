"""Keeps torch.fx's tracing and forward passes of other threads apart.

While it traces, torch.fx replaces ``nn.Module.__call__`` for the whole process: a forward pass of another thread would
be taken for a part of what is traced, and one of the two fails, or is silently traced wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Passes:
    """Any number of passes at once, or one tracing alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._passes = self._waiting = 0
        self._tracing = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Hold tracing off for a forward pass; waits while somebody traces."""
        with self._changed:
            # A tracing that waits goes first: passes follow each other without a gap.
            while self._tracing or self._waiting:
                self._changed.wait()
            self._passes += 1
        try:
            yield
        finally:
            with self._changed:
                self._passes -= 1
                if not self._passes:
                    self._changed.notify_all()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Hold forward passes off while tracing; waits until those under way are done."""
        with self._changed:
            self._waiting += 1
            while self._tracing or self._passes:
                self._changed.wait()
            self._waiting -= 1
            self._tracing = True
        try:
            yield
        finally:
            with self._changed:
                self._tracing = False
                self._changed.notify_all()


PASSES = _Passes()
