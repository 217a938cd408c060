"""Traces of a few training steps."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from acr_ray.storage import Folder

FIRST, COUNT = 2, 3  # steps of an epoch: the first two choose kernels and fill caches


class Profile:
    """A Chrome trace (chrome://tracing, Perfetto) of steps 2 to 4 of some epochs.

    Call it after each step, and `end_epoch` after each epoch: one with fewer steps is traced to its end.

    Args:
        folder: gets ``rank0_epoch00000.json``.
        rank: of this worker.
        epochs: to trace.
    """

    def __init__(self, folder: Folder, rank: int, epochs: Collection[int]) -> None:
        self._folder, self._rank, self._epochs = folder, rank, set(epochs)
        self._running: profile | None = None
        self._begun = 0

    def __call__(self, epoch: int, number: int) -> None:
        """A step is over."""
        if self._running is not None and number >= self._begun + COUNT:
            self.end_epoch(epoch)
        elif self._running is None and epoch in self._epochs and number >= FIRST - 1:
            kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self._running, self._begun = profile(activities=kinds, record_shapes=True), number
            self._running.start()

    def end_epoch(self, epoch: int) -> None:
        """Write the trace that is being taken, if any."""
        if self._running is None:
            return
        self._running.stop()
        self._epochs.discard(epoch)
        with tempfile.TemporaryDirectory() as local:
            path = Path(local) / "trace.json"
            self._running.export_chrome_trace(str(path))
            self._running = None
            try:
                self._folder.write_bytes(f"rank{self._rank}_epoch{epoch:05d}.json", path.read_bytes())
            except OSError as error:
                print(f"the profile could not be written ({error})", flush=True)
