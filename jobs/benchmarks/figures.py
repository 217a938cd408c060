"""Timings that can be compared: alternating runs, and ratios of runs that lie next to each other in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median


def figure(values: Sequence[float]) -> dict[str, float | int]:
    """How a measured number is written: median, extremes, and how many runs they come from."""
    return {"median": median(values), "min": min(values), "max": max(values), "runs": len(values)}


def alternate(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each piece of work returns (its seconds, by its own clock), ``rounds`` times, in turns.

    What slows the machine down slows all of them; every second round goes backwards, so that none always follows the
    same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else reversed(list(works)):
            seconds[name].append(works[name]())
    return seconds


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float | int]:
    """The figure of ``over[i] / under[i]``, round by round."""
    return figure([a / b for a, b in zip(over, under, strict=True)])
