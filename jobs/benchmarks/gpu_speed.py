"""``bench gpu``: noise draws a second and training steps, as ratios of works that alternate in one process."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from acr_ray.settings import Recipe, load_recipe
from acr_ray.smoothing.arithmetic import prepare, use_float32
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.training.estimate import label_counts
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.timing import wait_for
from jobs.benchmarks import train_works
from jobs.benchmarks.certify_works import cohen, image_of, model_in, shape_of
from jobs.benchmarks.figures import alternate, figure, ratios
from jobs.benchmarks.gpu_parts import Findings
from jobs.benchmarks.train import recipe_of

# network: rows of a pass, draws of a run
CERTIFY = {"cifar_resnet110": (4000, 80_000), "resnet50": (1000, 8000)}
TRAIN = {"cifar_resnet110": (4, 3, 0.25, 0.25, 256), "resnet50": (1, 2, 0.5, 1.0, 256)}  # m, T, sigma, epsilon, batch
DRY_CERTIFY, DRY_TRAIN = {"cifar_resnet20": (20, 40)}, {"cifar_resnet20": (2, 1, 0.25, 0.25, 8)}
WAYS = (("bfloat16", True), ("bfloat16", False), ("float16", False), ("float32", False))  # and whether compiled
DRY_WAYS = (("float32", False), ("bfloat16", False))
LIMIT = 85.0  # seconds: what does not begin before is left out, and said


def certify(found: Findings) -> None:
    """The engine against the same forward passes alone, and against Cohen et al.'s loop as torch runs it by default."""
    sizes = DRY_CERTIFY if found.dry else CERTIFY
    networks = {name: with_statistics(name, found.device) for name in sizes}
    first: dict[str, list[float]] = {}
    ways = DRY_WAYS if found.dry else WAYS
    for way in ways:
        for name, (block, draws) in sizes.items():
            # Fewer where they take long.
            few = draws if way[1] or found.dry else max(block, draws // 4)
            rates = _draws(found, name, networks[name], way, block, few)
            first.setdefault(name, rates)
        if way is ways[0]:
            for name in sizes:
                _cohen(found, name, *sizes[name], first[name])


def _draws(
    found: Findings, name: str, network: torch.nn.Module, way: tuple[str, bool], block: int, draws: int
) -> list[float]:
    """Check a network in a way of computing; returns its draws a second."""
    dtype, compiled = way
    label, rates = f"{name}, {dtype}{', compiled' if compiled else ''}, {block} rows a pass", []
    classes = 1000 if shape_of(name)[1] == 224 else 10
    if found.seconds > LIMIT:
        found.measured(f"{label}: left out, no time")
        return []
    with found.check(f"draws of {label}") as v:
        ready = prepare(network, device=found.device, dtype=dtype, compiled=compiled, rows=(block,))
        works = {"engine": _engine(ready, name, classes, block, draws, found.device, 255)}
        works["float"] = _engine(ready, name, classes, block, draws, found.device, None)
        works["forward"] = _forward(ready, name, block, draws, found.device)
        for work in works.values():
            work()  # kernels are chosen, compiled and captured
        seconds = alternate(works, 3)
        rates = [draws / s for s in seconds["engine"]]
        v["draws_a_second"] = figure(rates)
        v["share_of_forward_alone"] = ratios(seconds["forward"], seconds["engine"])
        v["share_with_float_noise"] = ratios(seconds["forward"], seconds["float"])
        if not found.dry:
            v["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
            torch.cuda.reset_peak_memory_stats()
    torch._dynamo.reset()
    return rates


def _cohen(found: Findings, name: str, block: int, draws: int, ours: list[float]) -> None:
    with found.check(f"Cohen's loop, {name}") as v:
        _torch_default()
        small, size = max(1, draws // 4), min(block, 400 if found.dry else 1000)
        cohen(name, size, found.device, size)
        rates = [small / cohen(name, small, found.device, size) for _ in range(2 if found.dry else 3)]
        v["draws_a_second"] = figure(rates)
        v["first_of_ours_is_times"] = figure([a / b for a in ours for b in rates])


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
        weights: dict[str, NDArray] | None = None
        # Compiled first: it learns faster, and the eager step begins where it has come to.
        for compiled in (False,) if found.dry or not name.startswith("cifar") else (True, False):
            label = f"{name}, m {sizes[0]}, T {sizes[1]}, batch {sizes[4]}, bfloat16{', compiled' if compiled else ''}"
            if found.seconds > LIMIT:
                found.measured(f"{label}: left out, no time")
                continue
            recipe = recipe_of(name, sizes, "bfloat16", compiled, sizes[4])
            with found.check(f"a training step with the attack: {label}") as v:
                weights = _steps(recipe, found, 2 if found.dry else 3, weights, v)
            # Before what is compiled is forgotten.
            if compiled or found.dry:
                with found.check(f"epochs of the CIFAR-10 recipe, {name}, bfloat16, compiled") as v:
                    v |= _epochs(name, found)
            torch._dynamo.reset()


def _steps(
    recipe: Recipe, found: Findings, rounds: int, weights: dict[str, NDArray] | None, values: dict[str, Any]
) -> dict[str, NDArray]:
    """Time steps from these weights, or from a short training's. Returns the weights."""
    device = found.device
    train_works.STATE.clear()
    train_works.set_up(recipe.model_dump(mode="json"), device, 64 if found.dry else 1024, weights)
    if weights is None:
        # Long enough that a part of the draws is classified correctly, as in a real run.
        weights = train_works.learn(2 if found.dry else warm_steps(recipe))
    active: list[int] = []
    batch = recipe.training.batch_size

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
        # The captured attack passes all rows in every PGD step, finished or not.
        return train_works.unavoidable([batch] * recipe.attack.steps if recipe.training.compile else active)

    works: dict[str, Callable[[], float]] = {"ours": ours, "unavoidable": unavoidable, "plain": plain}
    for work in works.values():
        work()
    seconds = alternate(works, rounds)
    values |= {
        "ms": figure([1000 * s for s in seconds["ours"]]),
        "samples_a_second": figure([batch / s for s in seconds["ours"]]),
        "times_plain_float32": ratios(seconds["plain"], seconds["ours"]),
        "share_of_unavoidable_passes": ratios(seconds["unavoidable"], seconds["ours"]),
        "still_correct_before_each_pgd_step": [round(a / batch, 3) for a in active],
    }
    if not found.dry:
        values["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        torch.cuda.reset_peak_memory_stats()
    return weights


def warm_steps(recipe: Recipe) -> int:
    """Steps of the short training before: fewer where they take long."""
    if recipe.training.compile:
        return 150
    return 18 if recipe.model.architecture.startswith("cifar") else 8


def _epochs(name: str, found: Findings) -> dict[str, Any]:
    """Seconds of real epochs of few images, loader included, and what they make of a run of 150 epochs."""
    images = train_works.images_of(name, 128 if found.dry else 6400)
    recipe = load_recipe("cifar10-0.25").change(
        {
            "model.architecture": name,
            "training.epochs": 4,
            "training.milestones": (),
            "training.e_t": 2,
            "training.precision": "bfloat16",
            "training.compile": not found.dry,
            "discard.enabled": False,
            "reweigh.enabled": False,
        }
    )
    trainer = Trainer(recipe, images, 0, Group(found.device), found.device)
    trainer.run()  # two epochs without the attack, two with it; kernels are compiled in the first of each
    plain, attacked = (trainer.progress.history[epoch]["seconds"] for epoch in (1, 3))
    draws = 16 if found.dry else 100
    seconds = []
    for number in range(2):
        wait_for(found.device)
        started = time.perf_counter()
        label_counts(
            trainer.engine,
            images,
            np.arange(len(images)),
            draws,
            purpose=f"bench/{number}",
            seed=0,
            augmented=True,
            group=trainer.group,
        )
        seconds.append(time.perf_counter() - started)
    full = load_recipe("cifar10-0.25")
    epochs, first, share = full.training.epochs, full.training.e_t, 50_000 / len(images)
    estimates = full.discard.draws + full.reweigh.draws * -(-(epochs - first) // full.reweigh.every)
    total = share * (first * plain + (epochs - first) * attacked + estimates * min(seconds) / draws)
    return {
        "seconds_of_an_epoch_before_the_attack": share * plain,
        "seconds_of_an_epoch_with_it": share * attacked,
        "p_a_draws_a_second": len(images) * draws / min(seconds),
        "minutes_of_a_run": total / 60,
    }


def _engine(
    ready: torch.nn.Module, name: str, classes: int, block: int, draws: int, device: str, levels: int | None
) -> Callable[[], float]:
    engine, phase = SamplingEngine(ready, classes, 0.25, device, levels), Phase("estimate", draws, block)

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
