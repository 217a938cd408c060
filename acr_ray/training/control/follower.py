"""What the driver hears of a run: the workers' records and events, read from their files while they grow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from acr_ray.settings import UserError
from acr_ray.training.control.channel import ControlChannel


class Follower:
    """Hands on the record of each new epoch, and each new event, once, from a thread of its own.

    Storage that fails for a moment is asked again a little later.

    Args:
        channel: of the run.
        on_epoch: gets an epoch's record.
        on_event: gets a line of what the run survived.
        interval: seconds between reads; None: the folder's own.
    """

    def __init__(
        self,
        channel: ControlChannel,
        on_epoch: Callable[[dict[str, Any]], None],
        on_event: Callable[[str], None] = lambda text: None,
        interval: float | None = None,
    ) -> None:
        self._channel, self._on_epoch, self._on_event = channel, on_epoch, on_event
        self._interval = channel.out.poll_seconds if interval is None else interval
        self._done = threading.Event()
        self._records_seen, self._events_seen = len(channel.records()), len(channel.events())
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.wait(self._interval):
            self._read()
        self._read()

    def _read(self) -> None:
        events: list[str] = []
        records: list[dict[str, Any]] = []
        with suppress(OSError, UserError):
            events, records = self._channel.events(), self._channel.records()
        for event in events[self._events_seen :]:
            self._on_event(event)
        self._events_seen = max(self._events_seen, len(events))
        for record in records[self._records_seen :]:
            self._on_epoch(record)
        # After a fault the workers begin again at a checkpoint, and the file is shorter for a while.
        self._records_seen = max(self._records_seen, len(records))
