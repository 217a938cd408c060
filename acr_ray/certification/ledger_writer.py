"""Results on their way to the ledger: written about every second, kept and tried again while the storage fails."""

from __future__ import annotations

import time
from collections.abc import Callable

from acr_ray.certification.ledger import Ledger, Line

FLUSH_SECONDS = 1.0  # results wait at most so long for the ledger
MOST_UNWRITTEN = 10_000  # lines; more are written at once


class StorageLost(RuntimeError):
    """Results could not be written for so long that to continue makes no sense."""


class LedgerWriter:
    """Collects lines and appends them to a ledger together.

    Args:
        ledger: of the run.
        patience: seconds for which the storage may fail.
        clock: seconds that only grow.
    """

    def __init__(self, ledger: Ledger, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._patience, self._clock = ledger, patience, clock
        self._unwritten: list[Line] = []
        self._tried = self._succeeded = clock()

    @property
    def unwritten(self) -> int:
        """How many lines are not in the ledger yet."""
        return len(self._unwritten)

    def add(self, line: Line) -> None:
        """Take a line; a later `flush` writes it."""
        self._unwritten.append(line)

    def flush(self, force: bool = False) -> None:
        """Write what waits, if it is time to.

        Args:
            force: write now, also if the last try was less than `FLUSH_SECONDS` ago.

        Raises:
            StorageLost: nothing could be written for ``patience`` seconds.
        """
        now = self._clock()
        if not self._unwritten:
            self._tried = self._succeeded = now
            return
        if not force and now - self._tried < FLUSH_SECONDS and len(self._unwritten) <= MOST_UNWRITTEN:
            return
        try:
            self._ledger.append(self._unwritten)
        except OSError as error:
            if now - self._succeeded > self._patience:
                raise StorageLost(f"the ledger could not be written for {self._patience:.0f} s ({error})") from error
            self._tried = now  # the next try in a second
            return
        self._unwritten = []
        self._tried = self._succeeded = self._clock()
