"""Progress as lines: right in a terminal, in a job's log and in a file."""

from __future__ import annotations

import time
from typing import Any

from acr_ray.settings import Recipe

SECONDS = 3.0  # between lines


class EpochLines:
    """A line for an epoch now and then, and always for the last one and those that choose samples anew."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._printed, self._started, self._first = recipe, 0.0, time.monotonic(), None

    def __call__(self, record: dict[str, Any]) -> None:
        epoch, epochs, now = record["epoch"] + 1, self._recipe.training.epochs, time.monotonic()
        self._first = self._first or (epoch, now)
        chosen = "discard_hard_share" in record
        if now - self._printed < SECONDS and epoch < epochs and not chosen:
            return
        self._printed = now
        line = f"epoch {epoch}/{epochs}  loss {record['loss']:.4f}  accuracy {100 * record['accuracy']:.1f} %"
        if record["remaining"] != record["inputs"]:
            line += f"  {record['remaining']} samples kept"
        if "attack_active" in record:
            line += f"  still correct {' '.join(f'{100 * a:.0f}' for a in record['attack_active'])} %"
        done = epoch - self._first[0]
        if done and epoch < epochs:
            line += f"  {clock((now - self._first[1]) / done * (epochs - epoch))} left"
        print(line, flush=True)


class CertifyLines:
    """A line now and then on how far a certification is."""

    def __init__(self) -> None:
        self._printed = time.monotonic()

    def __call__(self, standing: Any) -> None:
        finished = standing.images_done == standing.images
        if not standing.rate or (time.monotonic() - self._printed < SECONDS and not finished):
            return
        self._printed = time.monotonic()
        planned = f" of {standing.evaluations_planned:,}" if standing.evaluations_planned else ""
        print(
            f"{standing.images_done}/{standing.images} images  {standing.actors} actors  "
            f"{standing.evaluations:,}{planned} noisy samples  "
            f"{standing.rate:,.0f}/s  {clock(standing.seconds_left)} left",
            flush=True,
        )


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
