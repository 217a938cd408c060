"""One part of ``bench gpu`` in a process of its own: python -m jobs.benchmarks.gpu_parts PART FILE [--dry]"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODULES = {
    "engine": "gpu_engine",
    "compiled": "gpu_engine",
    "training": "gpu_training",
    "workers": "gpu_workers",
    "certify": "gpu_speed",
    "train": "gpu_speed",
    "loader": "gpu_loader",
    "jobs": "gpu_jobs",
}


@dataclass
class Findings:
    """Where a part says what it found; written at once, so that a part that is ended leaves what it had.

    Attributes:
        device: ``cuda`` or, dry, ``cpu``.
        dry: toy sizes.
    """

    file: Path
    dry: bool
    started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def seconds(self) -> float:
        """Since the part began."""
        return time.monotonic() - self.started

    def add(self, status: str, name: str, **values: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"status": status, "name": name, **values}, default=str) + "\n")
        text = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
        print(f"{status:8} {self.seconds:6.1f} s  {name}  {text}"[:600], flush=True)

    def measured(self, name: str, **values: Any) -> None:
        self.add("measured", name, **values)

    @contextlib.contextmanager
    def check(self, name: str) -> Iterator[dict[str, Any]]:
        """Passed if the block returns, failed if it raises; what is put into the dictionary is written with it."""
        values: dict[str, Any] = {}
        try:
            yield values
        except Exception as error:  # whatever breaks a check is what it finds
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "contextlib" not in f.filename]
            line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({line})"
            self.add("failed", name, **{**values, "why": why})
        else:
            self.add("passed", name, **values)


def main(part: str, file: str, *flags: str) -> None:
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    findings = Findings(Path(file), "--dry" in flags)
    module = importlib.import_module(f"jobs.benchmarks.{MODULES[part]}")
    getattr(module, part)(findings)


if __name__ == "__main__":
    main(*sys.argv[1:])
