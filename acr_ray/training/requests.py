"""What asks a worker to save or leave between two steps: a signal, the driver, the clock, a notice from the cluster."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from acr_ray.settings import UserError
from acr_ray.storage import Folder
from acr_ray.training.worker_sync import END, LEAVE, SAVE

CONTROL = "control.json"  # between driver and workers: {"state": one of the following}
STARTING, RUNNING, STOP, STOPPED = "starting", "running", "stop", "stopped"
GRACE = 30.0  # seconds in which a worker that is told to leave has saved, and a driver waits for it

_told_to_leave = threading.Event()


def listen() -> None:
    """Take SIGTERM as a request to save and leave; a second one ends the process. Call it from the main thread."""

    def leave(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _told_to_leave.set()

    signal.signal(signal.SIGTERM, leave)


def steering(out: Folder) -> str:
    """What the file says; `STARTING` where there is none or it cannot be read at the moment."""
    try:
        return out.read_json(CONTROL)["state"] if out.is_file(CONTROL) else STARTING
    except (OSError, KeyError, TypeError, UserError):
        return STARTING


def steer(out: Folder, state: str) -> None:
    """Say it, where there is room to."""
    try:
        out.write_json(CONTROL, {"state": state})
    except OSError as error:
        print(f"{out}/{CONTROL} could not be written ({error})", flush=True)


class Requests:
    """One worker's requests, for `WorkerSync`.

    Args:
        out: the run's folder.
        rank: only 0 reads the driver's file and the clock; a signal reaches any of them.
        minutes: between checkpoints within an epoch; None: none.
        preempted: whether the cluster has announced that it will take a node of this run away.
    """

    def __init__(
        self, out: Folder, rank: int, minutes: float | None, preempted: Callable[[], bool] = lambda: False
    ) -> None:
        self._out, self._leads, self._minutes, self._preempted = out, rank == 0, minutes, preempted
        self._end, self._notice_served, self._saved = threading.Event(), False, time.monotonic()
        _told_to_leave.clear()
        if self._leads:
            threading.Thread(target=self._read, daemon=True).start()

    def __call__(self) -> int:
        wanted = LEAVE if _told_to_leave.is_set() else 0
        if self._preempted() and not self._notice_served:
            wanted |= SAVE
        if self._leads and self._end.is_set():
            wanted |= END
        if self._leads and self._minutes and time.monotonic() - self._saved > 60 * self._minutes:
            wanted |= SAVE
        return wanted

    def served(self) -> None:
        """A checkpoint has been made; call it on every worker."""
        self._saved, self._notice_served = time.monotonic(), self._preempted()

    def _read(self) -> None:
        while not self._end.wait(self._out.look_seconds):
            if steering(self._out) == STOP:
                self._end.set()
