"""Jobs as a user runs them: processes of their own, with their exit codes and what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent


def environment(head=None) -> dict[str, str]:
    """What a job is started with: the head's cluster, or no cluster at all."""
    base = head.environment if head else {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    clean = {k: v for k, v in base.items() if not k.startswith("MLFLOW_")}
    return clean | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(job: str, *arguments: object, head=None, cwd: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"jobs.{job}", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment(head), cwd=cwd or ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(job: str, *arguments: object, head=None, cwd: Path | None = None, code: int | None = 0) -> tuple[str, str]:
    """Run a job to its end. Returns what it printed to stdout and stderr; fails where the exit code is another."""
    process = start(job, *arguments, head=head, cwd=cwd)
    out, err = process.communicate(timeout=1000)
    assert code is None or process.returncode == code, f"exit code {process.returncode}\n{out[-3000:]}\n{err[-3000:]}"
    return out, err


def wait_for(condition: Callable[[], bool], seconds: float = 300, process: subprocess.Popen | None = None) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"the job ended first, code {process.returncode}\n{out[-2000:]}\n{err[-2000:]}")
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def below(root_pid: int, word: str) -> list[psutil.Process]:
    """Living descendants of a process whose command line has a word, e.g. Ray's workers by their class."""
    found = []
    for process in psutil.Process(root_pid).children(recursive=True):
        try:
            if any(word in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def epochs_done(out: Path) -> int:
    path = out / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def model_sha256(out: Path) -> str:
    return json.loads((out / "checkpoint" / "model.json").read_text())["sha256"]
