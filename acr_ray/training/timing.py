"""Where an epoch's seconds go, without making a GPU wait to find out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "noise", "attack", "forward_backward", "optimizer", "p_a")


class Timers:
    """Seconds of each part: the process's clock on a CPU, the device's own events on a GPU.

    Events are read at `drain`, which waits for the device; callers do it about once a second, where they wait anyway.
    The gradients' all-reduce overlaps with the backward pass and counts as ``forward_backward``; ``optimizer`` holds
    the optimizer and the averaging of batch statistics. ``data`` is the time spent waiting for the loader.
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = torch.device(device).type == "cuda"
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        # Waiting for data, and p_A estimates, which end with counts on the host, are seen on the process's clock.
        if not self._on_gpu or part in ("data", "p_a"):
            started = time.perf_counter()
            yield
            self.seconds[part] += time.perf_counter() - started
            return
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._pending.append((part, begin, end))

    def drain(self) -> None:
        """Add up the events so far."""
        if self._pending:
            torch.cuda.synchronize()
        for part, begin, end in self._pending:
            self.seconds[part] += begin.elapsed_time(end) / 1000
        self._pending.clear()

    def take(self, images: int, seconds: float) -> dict[str, float]:
        """Return what a record says of an epoch, and begin anew.

        Args:
            images: noise draws that all workers trained on in these seconds.
            seconds: of the epoch, by this worker's clock, > 0.

        Returns:
            ``images_per_s`` (p_A estimates not counted), the share of seconds of each part, and on a GPU
            ``gpu_peak_mb``.
        """
        self.drain()
        stepping = max(seconds - self.seconds["p_a"], 1e-9)
        found = {"images_per_s": round(images / stepping, 2)}
        found |= {f"{part}_share": round(spent / max(seconds, 1e-9), 5) for part, spent in self.seconds.items()}
        if self._on_gpu:
            found["gpu_peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
            torch.cuda.reset_peak_memory_stats()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        return found


def wait_for(device: str) -> None:
    """Until a GPU has done all that it was given; a CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
