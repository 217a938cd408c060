"""Calls that MLflow has not answered yet: kept, and made again in their order once it can be reached."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

AGAIN = 30.0  # seconds between tries while nobody waits: a server that hangs costs ten seconds each time
# What the server will answer again however often it is asked.
FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "NOT_IMPLEMENTED", "FEATURE_DISABLED")


class Backlog:
    """Makes calls; what fails is kept and tried again before anything that comes later.

    Args:
        lost, found: told once, with the reason, as calls begin to fail, and as they work again.
        clock, sleep: of this process.

    Attributes:
        failure: why the last call failed; None where it did not.
        final: trying again would not help.
    """

    def __init__(
        self,
        lost: Callable[[str], None],
        found: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._lost, self._found, self._clock, self._sleep = lost, found, clock, sleep
        self._calls: list[Callable[[], Any]] = []
        self._lock = threading.RLock()  # a run's epochs are logged from another thread than its end
        self._again = 0.0
        self.failure: str | None = None
        self.final = False

    @property
    def empty(self) -> bool:
        return not self._calls and self.failure is None

    def later(self, call: Callable[[], Any]) -> None:
        """Make a call, now or once it can be made."""
        with self._lock:
            self._calls.append(call)
            self.clear()

    def now(self, call: Callable[[], Any]) -> Any:
        """Make a call after all that wait; None where that can't be done now."""
        with self._lock:
            if not self.clear():
                return None
            try:
                return call()
            except Exception as error:  # whatever MLflow, its store or the network throws: the run must go on
                self._failed(error)
                return None

    def clear(self, wait: float = 0.0) -> bool:
        """Make the calls that wait. Returns whether none is left.

        Args:
            wait: seconds in which to try again and again; 0: once, and not too soon after the last try.
        """
        with self._lock:
            until = self._clock() + wait
            if self.final or (self.failure and not wait and self._clock() < self._again):
                return False
            while not self._try():
                if self.final or self._clock() >= until:
                    return False
                self._sleep(min(2.0, wait))
            return True

    def _try(self) -> bool:
        try:
            while self._calls:
                self._calls[0]()
                self._calls.pop(0)
        except Exception as error:
            self._failed(error)
            return False
        if self.failure is not None:
            self.failure = None
            self._found()
        return True

    def _failed(self, error: Exception) -> None:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        first, self.failure = self.failure is None, reason
        self.final = getattr(error, "error_code", None) in FINAL
        self._again = self._clock() + AGAIN
        if first:
            self._lost(reason)
