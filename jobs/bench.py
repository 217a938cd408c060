"""Measure this machine: python -m jobs.bench certify|noise|train|search|loader|serve [--device cpu|cuda] [--quick]

Every figure is a ratio within one run, as median, least and greatest. The last line is one JSON object.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from typing import Any

from acr_ray import __version__
from acr_ray.cli.exits import CommandFailed, run_command
from acr_ray.cli.parser import Parser
from acr_ray.cli.ray_session import connect
from acr_ray.settings.errors import UserError

# A benchmark is a module with ``add_options(parser)`` and ``run(options) -> dict``: the JSON object's own fields.
BENCHMARKS = {
    "certify": "the sampling engine against forward passes alone, Cohen's loop and ART; --simulate: stopping rules",
    "noise": "lattice noise against float noise: numbers a second, memory, and the engine with either",
    "train": "the recipe's step against the same written plainly, and against the passes it cannot avoid",
    "loader": "images a second read, decoded and cropped, from folders and packs, against what a step takes in",
    "gpu": "the CUDA path against the CPU, and its figures; needs neither Ray nor MLflow; --dry without a GPU",
    "serve": "jobs.serve at 1, 8 and 64 clients against the engine's own draws and one image after the other",
    "search": "a search with trunks, ASHA and validation by rank against one without: rows through the network",
}


def main(argv: list[str]) -> None:
    name = argv[0] if argv and not argv[0].startswith("-") else None
    if name is not None and name not in BENCHMARKS:
        raise UserError(f"BENCHMARK {name}: unknown; allowed: {', '.join(BENCHMARKS)}")
    module = importlib.import_module(f"jobs.benchmarks.{name}") if name else None
    listed = "\n".join(f"  {key:8} {text}" for key, text in BENCHMARKS.items())
    parser = Parser(prog=f"python -m jobs.bench {name or 'BENCHMARK'}", description=f"{__doc__}\n{listed}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure [default: cpu]")
    parser.add_argument("--quick", action="store_true", help="under 45 seconds: fewer runs, smaller sizes")
    if module:
        module.add_options(parser)
    options = parser.parse_args(argv[1:] if module else argv)
    if module is None:
        raise UserError(f"BENCHMARK: missing; allowed: {', '.join(BENCHMARKS)}")
    _check_device(options.device)
    if getattr(module, "needs_cluster", lambda options: False)(options):
        connect()
    found = module.run(options)
    settings = {"benchmark": name, **vars(options)}
    print(json.dumps({**found, "device": _device(options.device), "versions": _versions(), "settings": settings}))
    if failed := found.get("failed"):
        raise CommandFailed(f"failed: {'; '.join(failed)}")


def _check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--device cuda: this machine has no usable GPU; allowed here: cpu")


def _device(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {platform.system()}"


def _versions() -> dict[str, Any]:
    import numpy
    import torch

    python = ".".join(map(str, sys.version_info[:3]))
    return {"acr_ray": __version__, "python": python, "torch": torch.__version__, "numpy": numpy.__version__}


if __name__ == "__main__":
    run_command(main)
