"""What is told of a service's work; Ray's metrics are in `acr_ray.serving.meters`."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Hears of the service's work."""

    def answered(self, kind: str, seconds: float, results: list[dict]) -> None: ...
    def refused(self, kind: str, status: int) -> None: ...
    def drawn(self, draws: int, seconds: float) -> None: ...


class NoMeter:
    """Tells nobody."""

    def answered(self, kind: str, seconds: float, results: list[dict]) -> None: ...
    def refused(self, kind: str, status: int) -> None: ...
    def drawn(self, draws: int, seconds: float) -> None: ...
