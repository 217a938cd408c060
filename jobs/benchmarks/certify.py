"""The sampling engine against what it cannot beat and what it should: forward passes alone, Cohen's loop, ART.

All certify one image of noise-free size with fresh weights: the time of a forward pass does not depend on what a
network has learnt. Ours and the forward passes run in a process started as the samplers are, Cohen's loop and ART in
one started as a user's would be; the two take turns.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from acr_ray.settings.errors import UserError
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from jobs.benchmarks import simulate
from jobs.benchmarks.figures import alternate, figure, ratios
from jobs.benchmarks.processes import Worker, together

WORKS = "jobs.benchmarks.certify_works"
MODELS = {"cpu": ("cifar_resnet20", "cifar_resnet110"), "cuda": ("cifar_resnet110", "resnet50")}
BLOCKS = {"cpu": (50, 100, 200, 400, 1000), "cuda": (100, 250, 500, 1000, 2000, 4000)}
COHEN_BATCH = 1000  # the default of locuslab/smoothing's certify.py
MEMORY_N = (10_000, 1_000_000)  # of the comparison of peak memory, on the digits' small network


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", metavar="M,M", help="networks [default: by device; --quick: the first]")
    parser.add_argument("--n", type=int, help="draws an image [default: 2000; --quick: 1000]")
    parser.add_argument("--rounds", type=int, metavar="K", help="runs of each [default: 5; --quick: 3]")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8"),
        help="of the engine [default: float32; cuda: bfloat16]; int8, of CPUs, is also measured against float32",
    )
    simulate.add_options(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print a table, and return the JSON object's fields."""
    if options.simulate:
        return simulate.run(options)
    models = options.models.split(",") if options.models else MODELS[options.device][: 1 if options.quick else None]
    options.n = options.n or (1000 if options.quick else 2000)
    rounds = options.rounds or (3 if options.quick else 5)
    dtype = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    if dtype == "int8":
        _check_int8(options)
    found: dict[str, Any] = {"models": {}}
    for name in models:
        found["models"][name] = _model(name, options, rounds, dtype)
    found["memory"] = _memory(options)
    if not options.quick:
        found["early_stopping"] = _early_stopping(options.device, dtype, rounds)
    if not options.quick and options.device == "cpu":
        found["job_vs_processes"] = _job(models[0], rounds)
    return found


def _check_int8(options: argparse.Namespace) -> None:
    from acr_ray.smoothing.int8_network import int8_problem  # loads torch

    if options.device == "cuda":
        raise UserError("--dtype int8: is an arithmetic of CPUs; leave --device cuda out")
    if problem := int8_problem():
        raise UserError(problem)


def _model(name: str, options: argparse.Namespace, rounds: int, dtype: str) -> dict[str, Any]:
    common = {"name": name, "n": options.n, "device": options.device}
    blocks = BLOCKS[options.device]
    with Worker(WORKS, WORKER_ENVIRONMENT) as ours, Worker(WORKS, {}) as theirs:
        swept = ours.call("sweep", **common, blocks=blocks[1:3] if options.quick else blocks, dtype=dtype)
        best = max(swept, key=lambda row: row["per_second"])
        engine_block = max((r for r in swept if r["form"] == "prepared"), key=lambda row: row["per_second"])["block"]
        works = {
            "limit": lambda: ours.call("limit", **common, block=best["block"], form=best["form"], dtype=dtype),
            "engine": lambda: ours.call("engine", **common, block=engine_block, dtype=dtype),
            "cohen": lambda: theirs.call("cohen", **common, block=COHEN_BATCH),
        }
        if dtype == "int8":
            works["float32"] = lambda: ours.call("engine", **common, block=engine_block, dtype="float32")
        if has_art():
            works["art"] = lambda: theirs.call("art", **common, batch=None)
        if has_art() and not options.quick:
            works["art-1000"] = lambda: theirs.call("art", **common, batch=COHEN_BATCH)
        for work in works.values():  # once unmeasured: kernels are chosen and memory is mapped
            work()
        seconds = alternate(works, rounds)
        peak = ours.call("peak_mb")
    ratio = {other: ratios(seconds[other], seconds["engine"]) for other in seconds if other != "engine"}
    rates = {work: figure([options.n / s for s in times]) for work, times in seconds.items()}
    print(f"{name}, N = {options.n}, best forward: {best['form']}, blocks of {best['block']}; ours: {engine_block}")
    for work, rate in rates.items():
        against = "" if work == "engine" else f"  {work}/engine time {ratio[work]['median']:.3f}"
        print(f"  {work:8} {rate['median']:9,.0f} samples/s ({rate['min']:,.0f} to {rate['max']:,.0f}){against}")
    return {
        "share_of_forward": ratio["limit"],
        "vs_cohen": ratio["cohen"],
        "vs_art": ratio.get("art"),
        "vs_float32": ratio.get("float32"),
        "vs_art_batch_1000": ratio.get("art-1000"),
        "peak_mb": figure([peak]),
        "samples_per_s": rates,
        "sweep": swept,
        "block": engine_block,
        "dtype": dtype,
    }


def _memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory above what the process had before, by N, each in a process of its own."""
    found: dict[str, Any] = {}
    for n in MEMORY_N:
        if options.quick and n > 100_000:
            n = 100_000
        with Worker(WORKS, WORKER_ENVIRONMENT) as worker:
            found[f"engine, N = {n}"] = figure([worker.call("memory", n=n, device=options.device)])
    if has_art() and options.device == "cpu" and not options.quick:
        n = 20_000
        with Worker(WORKS, {}) as worker:
            found[f"art, N = {n}"] = figure([worker.call("art_memory", n=n)])
    for name, value in found.items():
        print(f"peak memory of {name} on 8x8 images: {value['median']:.1f} MB more than before")
    return found


def _job(name: str, rounds: int) -> dict[str, float | int]:
    """Samples a second of two actors under the coordinator, over two plain processes running the engine."""
    from jobs.benchmarks.certify_job import Job

    images, n = 4, 2000
    with (
        Job(name, 2 * images, n) as job,
        Worker(WORKS, WORKER_ENVIRONMENT) as a,
        Worker(WORKS, WORKER_ENVIRONMENT) as b,
    ):
        call = {"name": name, "n": n, "images": images, "device": "cpu", "block": 200, "dtype": "float32"}
        plain = lambda: max(together((a, "engine", call), (b, "engine", call)))  # noqa: E731
        plain()
        job.seconds()
        seconds = alternate({"plain": plain, "job": job.seconds}, rounds)
    shares = ratios(seconds["plain"], seconds["job"])
    print(f"{name}: 2 actors against 2 plain processes: {shares['median']:.3f} of their samples a second")
    return shares


def _early_stopping(device: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Seconds and passes of `--stopping radii` on digits: passes of one image over passes that images share."""
    call = {"images": 100, "n": 20_000, "block": 500 if device == "cpu" else 2000, "device": device, "dtype": dtype}
    with Worker("jobs.benchmarks.certify_looks", WORKER_ENVIRONMENT) as worker:
        last: dict[str, Any] = {}

        def seconds(shared: bool) -> float:
            last["shared" if shared else "own"] = worker.call("run", shared=shared, **call)
            return last["shared" if shared else "own"]["seconds"]

        works = {"own": lambda: seconds(False), "shared": lambda: seconds(True)}
        for work in works.values():
            work()
        ratio = ratios(*(alternate(works, rounds)[way] for way in ("own", "shared")))
    counts = {way: (run["passes"] / call["images"], run["rows"] / run["passes"]) for way, run in last.items()}
    for way, (passes, rows) in counts.items():
        print(f"--stopping radii, digits, {way} passes: {passes:.1f} an image, of {rows:.0f} rows")
    print(f"--stopping radii, digits: passes of one image take {ratio['median']:.2f} times as long as shared ones")
    names = ("passes_per_image", "rows_per_pass")
    return {"own_over_shared": ratio, **{way: dict(zip(names, one, strict=True)) for way, one in counts.items()}}


def has_art() -> bool:
    """Whether IBM's adversarial-robustness-toolbox is installed (a development dependency)."""
    return importlib.util.find_spec("art") is not None
