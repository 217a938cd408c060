"""Progress as lines: right in a terminal, in a job's log and in a file."""

from __future__ import annotations

import threading
import time
from typing import Any

from acr_ray.settings import Recipe

SECONDS = 3.0  # between lines
STILL = 15.0  # of silence, after which a line names what is being waited for


class Waiting:
    """Say what a command waits for, at once and again, ever more rarely, until it is over.

    Use it as a context manager: it has a thread, which ends with it.
    """

    def __init__(self, seconds: float = STILL) -> None:
        self._seconds, self._pause, self._text, self._since = seconds, seconds, "", time.monotonic()
        self._changed, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Waiting:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._changed.set()
        self._thread.join()

    def begin(self, text: str, at_once: bool = True) -> None:
        """Wait for this from now on, e.g. ``starting Ray``; said at once, or only if it takes a while."""
        self._text, self._since, self._pause = text, time.monotonic(), self._seconds
        if at_once:
            print(f"{text} …", flush=True)
        self._changed.set()

    def end(self) -> None:
        """Say nothing more: something has come that tells the user as much."""
        self._text = ""
        self._changed.set()

    def _repeat(self) -> None:
        while not self._over:
            changed = self._changed.wait(self._pause)
            self._changed.clear()
            if not changed and self._text:
                self._pause = min(2 * self._pause, 8 * self._seconds)
                print(f"{self._text} … {clock(time.monotonic() - self._since)}", flush=True)


class EpochLines:
    """Print a line for an epoch now and then, and always for the last one and those that choose samples anew."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._printed, self._started = recipe, 0.0, time.monotonic()
        self._first: tuple[int, float] | None = None  # an epoch and when its record came

    def __call__(self, record: dict[str, Any]) -> None:
        epoch, epochs, now = record["epoch"] + 1, self._recipe.training.epochs, time.monotonic()
        self._first = self._first or (epoch, now)
        begins = self._recipe.changes_at_e_t and record["epoch"] == self._recipe.training.e_t
        if begins:
            print(self._what_begins(record), flush=True)
        if now - self._printed < SECONDS and epoch < epochs and not begins:
            return
        self._printed = now
        print(self.text(record), flush=True)

    def text(self, record: dict[str, Any]) -> str:
        """Write an epoch's numbers as a line."""
        epoch, epochs, now = record["epoch"] + 1, self._recipe.training.epochs, time.monotonic()
        self._first = first = self._first or (epoch, now)
        attacked = " on attacked noise" if "attack_active" in record else ""
        line = f"epoch {epoch}/{epochs}  loss {record['loss']:.4f}  accuracy {100 * record['accuracy']:.1f} %{attacked}"
        if record["remaining"] != record["inputs"]:
            line += f"  {record['remaining']:,} of {record['inputs']:,} samples kept"
        if "attack_active" in record:
            shares = " ".join(f"{100 * a:.0f}" for a in record["attack_active"])
            line += f"  correct before each attack step: {shares} %"
        done = epoch - first[0]
        if done and epoch < epochs:
            line += f"  {clock((now - first[1]) / done * (epochs - epoch))} left"
        return line

    def _what_begins(self, record: dict[str, Any]) -> str:
        """At E_t the numbers change their meaning."""
        r = self._recipe
        parts = []
        if r.discard.enabled:
            parts.append(f"samples with p_A < {r.discard.p_t:g} are left out")
        if r.reweigh.enabled:
            parts.append("samples are drawn by their approximate certified radius")
        if r.attack.enabled:
            parts.append("the noise is attacked, so loss and accuracy are of harder draws than before")
        parts = parts or ["samples are drawn with replacement"]
        return f"from epoch {record['epoch'] + 1} on (E_t = {r.training.e_t}): {'; '.join(parts)}"


class CertifyLines:
    """Print a line now and then on how far a certification is."""

    def __init__(self) -> None:
        self._printed = time.monotonic()

    def __call__(self, progress: Any) -> None:
        finished = progress.images_done == progress.images
        if not (progress.rate or finished) or (time.monotonic() - self._printed < SECONDS and not finished):
            return
        self._printed = time.monotonic()
        print(certify_text(progress), flush=True)


def certify_text(progress: Any) -> str:
    """Write how far a certification is as a line; see `acr_ray.telemetry.progress.CertificationProgress`."""
    planned = f" of {progress.noise_draws_planned:,}" if progress.noise_draws_planned else ""
    speed = f"  {progress.rate:,.0f}/s  {clock(progress.seconds_left)} left" if progress.rate else ""
    return (
        f"{progress.images_done}/{progress.images} images  {count(progress.actors, 'actor')}  "
        f"{progress.noise_draws:,}{planned} noise draws{speed}"
    )


def count(number: int | str, thing: str) -> str:
    """Write a number, or a range as text, with its noun: ``1 worker``, ``2 workers``, ``2:8 workers``."""
    return f"{number} {thing}" if number in (1, "1") else f"{number} {thing}s"


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss or m:ss."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
