"""Metrics of the service for Prometheus, exported by Ray beside its own; see `acr_ray.telemetry.meters`."""

from __future__ import annotations

from ray.serve import metrics

LATENCY_MS = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0]


class ServeMeter:
    """Counts requests, answers and draws of one replica. Ray adds which replica it is."""

    def __init__(self) -> None:
        # Ray annotates tuples of one entry, and takes more.
        kind, status, reason = ("kind",), ("kind", "status"), ("kind", "reason")
        self._requests = metrics.Counter("acr_serve_requests", "requests by status", status)  # type: ignore[arg-type]
        self._latency = metrics.Histogram("acr_serve_latency_ms", "milliseconds to an answer", LATENCY_MS, kind)
        self._images = metrics.Counter("acr_serve_images", "images by why they ended", reason)  # type: ignore[arg-type]
        self._abstained = metrics.Counter("acr_serve_abstentions", "images with no class proved", kind)
        self._draws = metrics.Counter("acr_serve_noisy_samples", "noise draws")

    def answered(self, kind: str, seconds: float, results: list[dict]) -> None:
        self._requests.inc(tags={"kind": kind, "status": "200"})
        self._latency.observe(1000 * seconds, tags={"kind": kind})
        for result in results:
            self._images.inc(tags={"kind": kind, "reason": result["reason"]})
            if result.get("abstained"):
                self._abstained.inc(tags={"kind": kind})

    def refused(self, kind: str, status: int) -> None:
        self._requests.inc(tags={"kind": kind, "status": str(status)})

    def drawn(self, draws: int, seconds: float) -> None:
        self._draws.inc(draws)
