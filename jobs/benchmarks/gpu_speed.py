"""``bench gpu``: noise draws a second and training steps, as ratios of works that alternate in one process."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch

from acr_ray.settings import Recipe
from acr_ray.smoothing.arithmetic import prepare, use_float32
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.training.timing import wait_for
from jobs.benchmarks import train_works
from jobs.benchmarks.certify_works import cohen, image_of, model_in, shape_of
from jobs.benchmarks.figures import alternate, figure, ratios
from jobs.benchmarks.gpu_parts import Findings
from jobs.benchmarks.train import recipe_of

# network: rows of a pass, draws of a run
CERTIFY = {"cifar_resnet110": (4000, 40_000), "resnet50": (1000, 4000)}
TRAIN = {"cifar_resnet110": (4, 3, 0.25, 0.25, 256), "resnet50": (1, 2, 0.5, 1.0, 256)}  # m, T, sigma, epsilon, batch
DRY_CERTIFY, DRY_TRAIN = {"cifar_resnet20": (20, 40)}, {"cifar_resnet20": (2, 1, 0.25, 0.25, 8)}
LIMIT = 60.0  # seconds: what does not begin before is left out, and said


def certify(found: Findings) -> None:
    """The engine against the same forward passes alone, and against Cohen et al.'s loop as torch runs it by default."""
    for name, (block, draws) in (DRY_CERTIFY if found.dry else CERTIFY).items():
        fresh, classes = with_statistics(name, found.device), 1000 if shape_of(name)[1] == 224 else 10
        first: list[float] = []
        ways = (
            [("float32", False), ("bfloat16", False)]
            if found.dry
            else [
                ("bfloat16", True),
                ("bfloat16", False),
                ("float16", False),
                ("float32", False),
            ]
        )
        for dtype, compiled in ways:
            label = f"{name}, {dtype}{', compiled' if compiled else ''}, {block} rows a pass"
            if found.seconds > LIMIT:
                found.measured(f"{label}: left out, no time")
                continue
            with found.check(f"draws of {label}") as v:
                ready = prepare(fresh, device=found.device, dtype=dtype, compiled=compiled, rows=(block,))
                works = {"engine": _engine(ready, name, classes, block, draws, found.device)}
                works["forward"] = _forward(ready, name, block, draws, found.device)
                for work in works.values():
                    work()  # kernels are chosen, compiled and captured
                seconds = alternate(works, 3)
                v["draws_a_second"] = figure([draws / s for s in seconds["engine"]])
                v["share_of_forward_alone"] = ratios(seconds["forward"], seconds["engine"])
                if not found.dry:
                    v["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
                    torch.cuda.reset_peak_memory_stats()
                first = first or [draws / s for s in seconds["engine"]]
            torch._dynamo.reset()
        with found.check(f"Cohen's loop, {name}") as v:
            _torch_default()
            small = max(1, draws // (1 if name.startswith("cifar") else 2))
            size = min(block, 400 if found.dry else 1000)
            cohen(name, size, found.device, size)
            rates = [small / cohen(name, small, found.device, size) for _ in range(2 if found.dry else 3)]
            v["draws_a_second"] = figure(rates)
            v["first_of_ours_is_times"] = figure([a / b for a in first for b in rates])


def with_statistics(name: str, device: str) -> torch.nn.Module:
    """A network whose batch statistics are those of noisy images: fresh ones let 110 layers overflow in float16."""
    network = copy.deepcopy(model_in("contiguous", name, "cpu")).to(device).train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(32, *shape_of(name), device=device) + 0.25)
    return network.cpu().eval()


def train(found: Findings) -> None:
    """Our step with the attack against the same written plainly in torch's default float32, and its own passes."""
    for name, sizes in (DRY_TRAIN if found.dry else TRAIN).items():
        for compiled in (False,) if found.dry else (False, True):
            label = f"{name}, m {sizes[0]}, T {sizes[1]}, batch {sizes[4]}, bfloat16{', compiled' if compiled else ''}"
            if found.seconds > LIMIT * (0.75 if compiled else 1):
                found.measured(f"{label}: left out, no time")
                continue
            with found.check(f"a training step with the attack: {label}") as v:
                recipe = recipe_of(name, sizes, "bfloat16", compiled, sizes[4])
                v |= _steps(recipe, found, rounds=2 if found.dry else 3)
            torch._dynamo.reset()


def _steps(recipe: Recipe, found: Findings, rounds: int) -> dict[str, object]:
    device = found.device
    train_works.STATE.clear()
    train_works.set_up(recipe.model_dump(mode="json"), device, 64 if found.dry else 1024)
    # Long enough that a part of the draws is classified correctly, as in a real run.
    weights = train_works.learn(2 if found.dry else warm_steps(recipe))
    active: list[int] = []

    def ours() -> float:
        nonlocal active
        use_float32("ieee")
        seconds, active, _ = train_works.ours(0, weights)
        return seconds

    def plain() -> float:
        _torch_default()
        return train_works.plain(0, weights)[0]

    def unavoidable() -> float:
        use_float32("ieee")
        return train_works.unavoidable(active)

    works: dict[str, Callable[[], float]] = {"ours": ours, "unavoidable": unavoidable, "plain": plain}
    for work in works.values():
        work()
    seconds = alternate(works, rounds)
    batch = recipe.training.batch_size
    values: dict[str, object] = {
        "ms": figure([1000 * s for s in seconds["ours"]]),
        "samples_a_second": figure([batch / s for s in seconds["ours"]]),
        "times_plain_float32": ratios(seconds["plain"], seconds["ours"]),
        "share_of_unavoidable_passes": ratios(seconds["unavoidable"], seconds["ours"]),
        "still_correct_before_each_pgd_step": [round(a / batch, 3) for a in active],
    }
    if not found.dry:
        values["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        torch.cuda.reset_peak_memory_stats()
    return values


def warm_steps(recipe: Recipe) -> int:
    """Steps of the short training before: fewer of the large network."""
    return 18 if recipe.model.architecture.startswith("cifar") else 8


def _engine(
    ready: torch.nn.Module, name: str, classes: int, block: int, draws: int, device: str
) -> Callable[[], float]:
    engine, phase = SamplingEngine(ready, classes, 0.25, device), Phase("estimate", draws, block)

    def work() -> float:
        wait_for(device)
        started = time.perf_counter()
        engine.count(image_of(name), "bench", 0, phase, 0, phase.blocks)
        return time.perf_counter() - started

    return work


def _forward(ready: torch.nn.Module, name: str, block: int, draws: int, device: str) -> Callable[[], float]:
    rows = torch.randn(block, *shape_of(name), device=device).to(memory_format=torch.channels_last)

    def work() -> float:
        with torch.inference_mode():
            wait_for(device)
            started = time.perf_counter()
            for _ in range(draws // block):
                ready(rows)
            wait_for(device)
        return time.perf_counter() - started

    return work


def _torch_default() -> None:
    """As a script gets it that chooses nothing: TF32 in convolutions, IEEE in matrix products."""
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cuda.matmul.fp32_precision = "ieee"
