"""Lattice noise against float noise: numbers a second, memory, and the engine with either. One thread, in turns."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.lattice import LatticeDraws
from acr_ray.smoothing.lattice_law import LatticeLaw, levels_for
from acr_ray.smoothing.noise import standard_normal
from acr_ray.smoothing.plan import Phase
from jobs.benchmarks.certify_works import image_of, model_in, shape_of
from jobs.benchmarks.figures import alternate, figure, ratios

SIGMA = 0.5
SIZES = {"32x32": (200, (3, 32, 32), 255), "8x8": (4000, (1, 8, 8), 16)}  # draws at once, shape, grid
NETWORKS = {"digits_resnet": (500, 16, 8000), "cifar_resnet20": (200, 255, 800)}  # block, grid, draws


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, metavar="K", help="runs of each [default: 9; --quick: 5]")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return the JSON object's fields. Ratios are float noise's time over lattice noise's."""
    torch.set_num_threads(1)
    rounds = options.rounds or (5 if options.quick else 9)
    found: dict[str, Any] = {"noise": {}, "engine": {}}
    for name, (draws, shape, grid) in SIZES.items():
        found["noise"][name] = _noise(name, draws, shape, grid, rounds)
    if options.device == "cpu":
        for name, (block, grid, draws) in NETWORKS.items():
            found["engine"][name] = _engine(name, block, grid, draws // (4 if options.quick else 1), rounds)
    return found


def _noise(name: str, draws: int, shape: tuple[int, int, int], grid: int, rounds: int) -> dict[str, Any]:
    numbers = draws * int(np.prod(shape))
    lattice = LatticeDraws(LatticeLaw(SIGMA, levels_for(SIGMA, grid)))
    steps = np.empty((1, draws, numbers // draws), dtype=np.int16)
    floats = torch.empty(1, draws, *shape[1:], shape[0])
    works = {
        "lattice": lambda: _timed(lambda: lattice([5], 0, draws, numbers // draws, steps)),
        "float": lambda: _timed(lambda: standard_normal([5], draws, shape, out=floats)),
    }
    seconds = alternate(works, rounds + 1)  # the first unmeasured: memory is mapped
    per_number = {kind: figure([s / numbers * 1e9 for s in times[1:]]) for kind, times in seconds.items()}
    faster = ratios(seconds["float"][1:], seconds["lattice"][1:])
    memory = steps.nbytes / (floats.numel() * floats.element_size())
    told = ", ".join(f"{kind} {ns['median']:.2f} ns" for kind, ns in per_number.items())
    print(f"noise {name}: {told} a number: lattice {faster['median']:.2f} times as fast; memory {memory:.2f}")
    return {"vs_float": faster, "ns": per_number, "memory_vs_float": memory}


def _engine(name: str, block: int, grid: int, draws: int, rounds: int) -> dict[str, Any]:
    model, image = model_in("prepared", name, "cpu"), image_of(name)
    phase = Phase("estimate", draws, block)
    levels = {"lattice": levels_for(SIGMA, grid), "float": None}
    engines = {kind: SamplingEngine(model, 10, SIGMA, levels=value) for kind, value in levels.items()}

    def work(engine: SamplingEngine) -> float:
        return _timed(lambda: engine.count(image, "bench", 0, phase, 0, phase.blocks))

    seconds = alternate({kind: lambda e=engine: work(e) for kind, engine in engines.items()}, rounds + 1)
    faster = ratios(seconds["float"][1:], seconds["lattice"][1:])
    print(f"engine {name} {shape_of(name)}: lattice {faster['median']:.3f} times as fast as float noise")
    return faster


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
