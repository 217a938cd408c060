"""Which draws go into the next forward pass, and the thread that draws one pass after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from operator import attrgetter

from acr_ray.serving.draws import Chunk, Drawer, Stream
from acr_ray.serving.questions import Part, Question

MARGIN = 0.005  # seconds before a deadline that an answer needs to leave


class Busy(Exception):
    """As many images as the queue holds are at work or waiting."""


class Closed(Exception):
    """The model has been replaced, or the service ends: nothing new is taken."""


@dataclass(eq=False)
class Ticket:
    """An image at work.

    Attributes:
        question: what is asked.
        stream: of the image's noisy copies.
        deadline: by the scheduler's clock.
        number: how many came before it, itself included.
        answer: its result is the question's, once it is answered or its time is up. A cancelled one is left aside.
    """

    question: Question
    stream: Stream
    deadline: float
    number: int = 0
    answer: Future[dict] = field(default_factory=Future)


class Scheduler:
    """Shares forward passes between all images at work, one place after the other in turn.

    Each image gets a place before any gets its second, so one that needs few draws does not wait for one that needs
    many; places that are left go to those who can use them, since a pass costs the same with empty ones. But the first
    place of a pass belongs to whoever came first: images that came together would otherwise end together, and while
    their answers leave and their clients ask again there would be nothing to draw.

    Args:
        drawer: of the model.
        queue: most images at work or waiting.
        on_pass: told the noise draws of each pass that belong to an image, and its seconds.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        drawer: Drawer,
        queue: int,
        on_pass: Callable[[int, float], None] = lambda draws, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._drawer, self._queue, self._on_pass, self._clock = drawer, queue, on_pass, clock
        self._turn: deque[Ticket] = deque()
        self._taken = 0  # tickets so far
        self._closed, self._changed = False, threading.Condition()
        self._thread: threading.Thread | None = None
        self.pass_seconds = 0.0  # of recent passes, rather more than less

    def __len__(self) -> int:
        """Return how many images are at work or waiting."""
        return len(self._turn)

    @property
    def device(self) -> str:
        """Where it draws."""
        return self._drawer.engine.device

    @property
    def alive(self) -> bool:
        """Whether the thread that draws is at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread that draws."""
        self._thread = threading.Thread(target=self._work, name="acr-ray-draws", daemon=True)
        self._thread.start()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Take all of these images, or none.

        Raises:
            Busy: they do not fit into the queue.
            Closed: nothing new is taken.
        """
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._turn) + len(tickets) > self._queue:
                raise Busy
            for ticket in tickets:
                self._taken += 1
                ticket.number = self._taken
                self._turn.append(ticket)
            self._changed.notify()

    def close(self, wait: bool = False) -> None:
        """Take nothing new; the thread ends once all that was taken is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if wait and self._thread is not None:
            self._thread.join()

    def step(self) -> bool:
        """Draw one pass. Returns whether there was something to draw."""
        chosen = self._choose()
        if not chosen:
            return False
        started = self._clock()
        drawn = self._drawer.draw([Chunk(t.stream, part.phase, part.number) for t, part in chosen])
        seconds = self._clock() - started
        self.pass_seconds = max(seconds, 0.8 * self.pass_seconds + 0.2 * seconds)
        self._on_pass(len(chosen) * self._drawer.chunk, seconds)
        for (ticket, _), classes in zip(chosen, drawn, strict=True):
            if isinstance(classes, Exception):
                self._end(ticket, classes)
            else:
                ticket.question.take(classes)
        for ticket in {id(ticket): ticket for ticket, _ in chosen}.values():
            if ticket.question.reason:
                self._end(ticket)
        return True

    def _choose(self) -> list[tuple[Ticket, Part]]:
        """Give out the places of the next pass; end first what would be late after it."""
        late = self._clock() + self.pass_seconds + MARGIN
        with self._changed:
            ended = [t for t in self._turn if t.deadline < late]
            for ticket in ended:
                self._turn.remove(ticket)
            chosen: list[tuple[Ticket, Part]] = []
            if self._turn:
                first = min(self._turn, key=attrgetter("number"))
                if first.question.parts_left and not first.answer.cancelled():
                    chosen.append((first, first.question.next_part()))
            waiting = 0  # in a row, with all their parts given out
            while len(chosen) < self._drawer.places and waiting < len(self._turn):
                ticket = self._turn.popleft()
                if ticket.answer.cancelled():  # asked in its turn: asking all of them would cost each pass a lock each
                    continue
                self._turn.append(ticket)
                if ticket.question.parts_left:
                    chosen.append((ticket, ticket.question.next_part()))
                    waiting = 0
                else:
                    waiting += 1
        for ticket in ended:
            self._resolve(ticket)
        return chosen

    def _end(self, ticket: Ticket, error: Exception | None = None) -> None:
        with self._changed:
            if ticket not in self._turn:
                return  # an error has ended it, or its client has gone
            self._turn.remove(ticket)
        self._resolve(ticket, error)

    @staticmethod
    def _resolve(ticket: Ticket, error: Exception | None = None) -> None:
        if not ticket.answer.set_running_or_notify_cancel():
            return
        if error is None:
            ticket.answer.set_result(ticket.question.answer("deadline"))
        else:
            ticket.answer.set_exception(error)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._turn and not self._closed:
                    self._changed.wait()
                if not self._turn:
                    return
            try:
                self.step()
            except Exception as error:  # a fault of one pass must not leave all later requests waiting for ever
                logging.getLogger(__name__).exception("a forward pass failed")
                with self._changed:
                    failed, self._turn = list(self._turn), deque()
                for ticket in failed:
                    self._resolve(ticket, error)
