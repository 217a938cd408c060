"""Prove and measure the CUDA path: python -m jobs.bench gpu [--dry] [--parts P,P] [--out DIR]

Needs PyTorch and a GPU, and neither Ray nor MLflow (with Ray the jobs themselves are tried, too). Each part runs in a
process of its own with a limit of its own, so that a part that breaks or hangs hides no other. Leaves ``gpu.json``
and ``gpu.md`` in ``--out``. Without a GPU ``--dry`` runs every part at toy size on the CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from acr_ray.settings.errors import UserError
from jobs.benchmarks.gpu_page import write_page

# Seconds that a part may take, at most; all but the last took six minutes on an H200 behind a slow host.
PARTS = {
    "engine": (50, "noise, logits and counts against the CPU's"),
    "training": (100, "attack, losses of all methods, optimizer, resume, waits"),
    "certify": (110, "noise draws a second"),
    "train": (120, "training steps, and what 150 epochs take"),
    "compiled": (50, "compiled networks against eager ones"),
    "loader": (30, "JPEG files decoded on the card"),
    "workers": (90, "NCCL, and processes that share gradients"),
    "jobs": (150, "train and certify on a private Ray; only if Ray is installed"),
}
DRY_LIMIT = 300  # none is meant to be reached: a machine may be busy


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry", action="store_true", help="toy sizes on the CPU: whether every part runs")
    parser.add_argument("--parts", metavar="P,P", help=f"which [default: all]: {', '.join(PARTS)}")
    parser.add_argument("--out", metavar="DIR", default="results/gpu", help="folder of gpu.json and gpu.md")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts one after the other. Raises UserError for a part that there is not."""
    names = options.parts.split(",") if options.parts else list(PARTS)
    for name in names:
        if name not in PARTS:
            raise UserError(f"--parts {name}: unknown; allowed: {', '.join(PARTS)}")
    if not options.dry and not _usable():
        raise UserError("bench gpu: this machine has no usable GPU; --dry tries the parts on the CPU")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    failed, machine = [], _machine(options.dry)
    lines = _earlier(out / "gpu.json", machine, names)
    for name in names:
        if name == "jobs" and importlib.util.find_spec("ray") is None:
            lines.append({"part": name, "status": "skipped", "name": "jobs", "why": "Ray is not installed here"})
            continue
        lines += _part(name, DRY_LIMIT if options.dry else PARTS[name][0], out, options.dry)
        # After each part: who is out of time has what there is.
        failed = [f"{line['part']}: {line['name']}" for line in lines if line["status"] == "failed"]
        found = {"machine": machine, "lines": lines, "failed": failed}
        (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        write_page(out / "gpu.md", found)
    print(f"{len(lines) - len(failed)} lines, {len(failed)} failed; written to {out}/gpu.md", flush=True)
    return {"failed": failed, "machine": machine, "checks": len(lines)}


def _earlier(written: Path, machine: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """Lines of other parts that were run before on such a machine on this day: parts can be run one by one."""
    try:
        found = json.loads(written.read_text())
    except (OSError, ValueError):
        return []
    return [line for line in found["lines"] if line["part"] not in names] if found["machine"] == machine else []


def _part(name: str, limit: float, out: Path, dry: bool) -> list[dict[str, Any]]:
    print(f"-- {name}: {PARTS[name][1]} (at most {limit:.0f} s)", flush=True)
    written, started = out / f"{name}.jsonl", time.monotonic()
    written.unlink(missing_ok=True)
    command = [sys.executable, "-u", "-m", "jobs.benchmarks.gpu_parts", name, str(written), *(["--dry"] if dry else [])]
    process = subprocess.Popen(command)
    try:
        code: int | None = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    text = written.read_text() if written.exists() else ""
    written.unlink(missing_ok=True)
    lines = [{"part": name, **json.loads(line)} for line in text.splitlines()]
    if code != 0:
        why = f"not done in {limit:.0f} s" if code is None else f"ended with exit code {code}"
        lines.append({"part": name, "status": "failed", "name": "the part as a whole", "why": why})
        print(f"FAILED {name}: {why}", flush=True)
    print(f"-- {name}: {time.monotonic() - started:.0f} s", flush=True)
    return lines


def _usable() -> bool:
    import torch

    return torch.cuda.is_available()


def _machine(dry: bool) -> dict[str, Any]:
    import torch

    about = {"python": sys.version.split()[0], "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    if dry:
        return {"device": "cpu, toy sizes", **about}
    p = torch.cuda.get_device_properties(0)
    return {
        "device": p.name,
        "compute_capability": f"{p.major}.{p.minor}",
        "memory_gib": round(p.total_memory / 2**30),
        "devices": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **about,
    }
