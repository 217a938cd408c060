"""``bench gpu``: the jobs as users start them, on a private Ray: NCCL under Ray Train, actors that share the card."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.benchmarks.gpu_parts import Findings


def jobs(found: Findings) -> None:
    """Train, certify with one and with two actors, audit."""
    gpu = not found.dry
    with tempfile.TemporaryDirectory(prefix="acr") as folder:
        model, certified = f"{folder}/run", {}
        with found.check("train on Ray Train") as v:
            short = ["--training.epochs", "4", "--training.e_t", "2", "--training.milestones", "3"]
            more = ["--training.precision", "bfloat16", "--gpus-per-worker", "1"] if gpu else []
            v["seconds"] = _job(found, "train", "digits", "--out", model, *short, *more)
            v["loss"] = json.loads((Path(model) / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
        for actors, share in (("1", "1"), ("2", "0.5")):
            with found.check(f"certify with {actors} actors") as v:
                out = f"{folder}/certified-{actors}"
                more = ["--actors", actors, *(["--gpus-per-actor", share] if gpu else [])]
                size = ["--n", "1000", "--max-images", "40"]
                v["seconds"] = _job(found, "certify", model, "--out", out, *size, *more)
                summary = json.loads((Path(out) / "summary.json").read_text())
                v["acr"], v["arithmetic"] = summary["acr"], summary["arithmetic"]
                certified[actors] = summary["acr"]
        with found.check("the number of actors changes nothing"):
            assert len(set(certified.values())) == 1 and len(certified) == 2, certified


def _job(found: Findings, name: str, *arguments: str) -> float:
    started, limit = time.monotonic(), 250 if found.dry else 100
    command = [sys.executable, "-m", f"jobs.{name}", *arguments, "--no-tracking"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        heard = ((error.stdout or b"") + (error.stderr or b"")).decode(errors="replace")
        raise RuntimeError(f"not done in {limit} s; its last words: {heard.strip()[-250:]}") from None
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-250:]}")
    return round(time.monotonic() - started, 1)
