"""Who does a piece of work that several ask for: the first, as long as it lives. A pure state machine."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

BEAT, EXPIRY = 1.0, 10.0  # seconds between heartbeats, and without one until another may take over


class Claims(Protocol):
    """What a worker may ask; an owner is any text that no other worker uses."""

    def ask(self, name: str, owner: str) -> bool:
        """Whether ``owner`` is to do the work ``name`` now; asked again by its owner, a heartbeat."""
        ...

    def release(self, name: str, owner: str) -> None:
        """The work is done, or its owner gives up."""
        ...


class Leases:
    """Claims that expire without their owner's heartbeat: killed processes release nothing.

    What is claimed must bear to be done twice: an owner that was only slow continues beside its successor.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, expiry: float = EXPIRY) -> None:
        self._clock, self._expiry = clock, expiry
        self._held: dict[str, tuple[str, float]] = {}

    def ask(self, name: str, owner: str) -> bool:
        holder, until = self._held.get(name, (owner, 0.0))
        if holder != owner and until > self._clock():
            return False
        self._held[name] = (owner, self._clock() + self._expiry)
        return True

    def release(self, name: str, owner: str) -> None:
        if self._held.get(name, ("", 0.0))[0] == owner:
            del self._held[name]


def new_owner() -> str:
    return uuid.uuid4().hex


@contextmanager
def heartbeat(claims: Claims, name: str, owner: str, beat: float = BEAT) -> Iterator[None]:
    """Send heartbeats for a claim that was granted while the work lasts, then release it."""
    done = threading.Event()

    def send() -> None:
        while not done.wait(beat):
            claims.ask(name, owner)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        claims.release(name, owner)
