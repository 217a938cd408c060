"""What asks a worker to save or leave between two steps: a signal, the driver, the clock, a notice from the cluster."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from acr_ray.formats.states import RunState
from acr_ray.training.control.channel import ControlChannel
from acr_ray.training.control.messages import Request


class Termination:
    """Whether this process was told to end (SIGTERM)."""

    def __init__(self) -> None:
        self._told = threading.Event()

    def listen(self) -> None:
        """Take SIGTERM as a request to save and leave; a second one ends the process. For the main thread only."""

        def leave(number: int, frame: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._told.set()

        self._told.clear()
        signal.signal(signal.SIGTERM, leave)

    def __call__(self) -> bool:
        return self._told.is_set()


# A process has one SIGTERM. Its handler is set in the main thread, and asked for in the one that trains.
TERMINATION = Termination()


def listen_for_termination() -> None:
    """Have `TERMINATION` take this process's SIGTERM. Call it from the main thread."""
    TERMINATION.listen()


class Requests:
    """One worker's requests, for `WorkerSync`.

    Args:
        channel: of the run.
        rank: only 0 reads the driver's request and the clock; a signal reaches any of them.
        minutes: between checkpoints within an epoch; None: none.
        terminated: whether this process was told to end.
        preempted: whether the cluster has announced that it will take a node of this run away.
    """

    def __init__(
        self,
        channel: ControlChannel,
        rank: int,
        minutes: float | None,
        terminated: Callable[[], bool] = lambda: False,
        preempted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._channel, self._leads, self._minutes = channel, rank == 0, minutes
        self._terminated, self._preempted = terminated, preempted
        self._end, self._notice_served, self._saved = threading.Event(), False, time.monotonic()
        if self._leads:
            threading.Thread(target=self._watch_driver, daemon=True).start()

    def __call__(self) -> Request:
        requests = Request.LEAVE if self._terminated() else Request(0)
        if self._preempted() and not self._notice_served:
            requests |= Request.SAVE
        if self._leads and self._end.is_set():
            requests |= Request.END
        if self._leads and self._minutes and time.monotonic() - self._saved > 60 * self._minutes:
            requests |= Request.SAVE
        return requests

    def served(self) -> None:
        """A checkpoint has been made; call it on every worker."""
        self._saved, self._notice_served = time.monotonic(), self._preempted()

    def _watch_driver(self) -> None:
        while not self._end.wait(self._channel.out.poll_seconds):
            if self._channel.state() == RunState.STOP:
                self._end.set()
