"""Calls that MLflow has not answered yet: kept, and made again in their order once it can be reached."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from acr_ray.tracking.names import shortened

AGAIN = 30.0  # seconds between tries while nobody waits: a server that hangs costs ten seconds each time
# What the server will answer again however often it is asked.
FINAL = (
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "BAD_REQUEST",
    "NOT_IMPLEMENTED",
    "FEATURE_DISABLED",
)


class Refused(Exception):
    """What MLflow will never take, by its names."""

    error_code = "INVALID_PARAMETER_VALUE"


def is_refusal(error: BaseException) -> bool:
    """Return whether the call itself is wrong: the same one will fail again, another one need not."""
    return isinstance(error, TypeError) or getattr(error, "error_code", None) in FINAL


class Backlog:
    """Makes calls; what fails is kept and tried again before anything that comes later.

    A call that is refused for what it is (`is_refusal`) is set aside: it would block all later ones for ever.

    Args:
        lost, found: told once, with the reason, as calls begin to fail, and as they work again.
        set_aside: told of each refusal, once for each reason.
        clock, sleep: of this process.

    Attributes:
        failure: why the last call failed; None if it did not.
        final: an essential call was refused: nothing later can be made, and trying again would not help.
    """

    def __init__(
        self,
        lost: Callable[[str], None],
        found: Callable[[], None],
        set_aside: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._lost, self._found, self._clock, self._sleep = lost, found, clock, sleep
        self._set_aside, self._refusals = set_aside, set[str]()
        self._calls: list[tuple[Callable[[], Any], bool]] = []
        self._lock = threading.RLock()  # a run's epochs are logged from another thread than its end
        self._again = 0.0
        self.failure: str | None = None
        self.final = False

    @property
    def empty(self) -> bool:
        return not self._calls and self.failure is None

    def later(self, call: Callable[[], Any], essential: bool = False) -> None:
        """Make a call, now or once it can be made; all later ones need an ``essential`` one."""
        with self._lock:
            self._calls.append((call, essential))
            self.clear()

    def now(self, call: Callable[[], Any]) -> Any:
        """Make a call after all that wait; None if that can't be done now."""
        with self._lock:
            if not self.clear():
                return None
            try:
                return call()
            except Exception as error:  # whatever MLflow, its store or the network throws: the run must continue
                if is_refusal(error):
                    self._refused(error)
                else:
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
        while self._calls:
            call, essential = self._calls[0]
            try:
                call()
            except Exception as error:
                if essential or not is_refusal(error):
                    self._failed(error)
                    self.final = is_refusal(error)
                    return False
                self._refused(error)
            self._calls.pop(0)
        if self.failure is not None:
            self.failure = None
            self._found()
        return True

    def _failed(self, error: Exception) -> None:
        reason = _told(error)
        first, self.failure = self.failure is None, reason
        self._again = self._clock() + AGAIN
        if first:
            self._lost(reason)

    def _refused(self, error: Exception) -> None:
        reason = _told(error)
        if reason not in self._refusals:
            self._refusals.add(reason)
            self._set_aside(reason)


def _told(error: Exception) -> str:
    return shortened(" ".join(str(error).split()), 400) or type(error).__name__
