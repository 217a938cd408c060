"""``bench gpu``: the sampling engine on the card against the CPU, eager and compiled."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2, kstest

from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.compiled import Compiled, compiler_problem
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.lattice import LatticeDraws
from acr_ray.smoothing.lattice_law import LatticeLaw, levels_for
from acr_ray.smoothing.lattice_torch import key_words
from acr_ray.smoothing.noise import LatticeNoise, standard_normal
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.shared import Asked, SharedPasses
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from jobs.benchmarks.figures import alternate, ratios
from jobs.benchmarks.gpu_narrow import convolutions
from jobs.benchmarks.gpu_parts import Findings

SIGMA, SHAPE = 0.25, (3, 32, 32)
LIMITS = {"float32": 2e-3, "tf32": 0.1, "bfloat16": 1.0, "float16": 0.2}  # of a logit, against the CPU's in float32


@cache
def trained(epochs: int = 4) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """A small network that knows digits, trained on the CPU; test images, labels and names."""
    recipe = load_recipe("digits-gaussian").change({"training.epochs": epochs, "training.milestones": ()})
    trainer = Trainer(recipe, open_images("digits", None, "train"), 0, Group())
    trainer.run()
    test = open_images("digits", None, "test")
    trainer.module._forward_hooks.clear()  # the counter of passes
    return trainer.module.eval(), test.load(range(len(test)), None), torch.from_numpy(test.labels), test.names


def engine(found: Findings) -> None:
    """Noise, logits, counts, order of blocks, memory."""
    device = found.device
    _noise(found)
    _lattice(found)
    convolutions(found)
    model, x, y, names = trained()
    few = 40 if found.dry else 400
    rows = (x[:few, None] + SIGMA * torch.randn(few, 20, *x.shape[1:], generator=_seeded(1))).flatten(0, 1)
    with torch.no_grad():
        reference = prepare(model)(rows)
    for dtype in _dtypes(found):
        with found.check(f"logits of the same rows, {dtype}") as v, torch.no_grad():
            logits = prepare(model, device=device, dtype=dtype)(rows.to(device)).cpu()
            v["largest_difference"] = float((logits - reference).abs().max())
            v["share_of_other_answers"] = float((logits.argmax(1) != reference.argmax(1)).double().mean())
            top = logits.topk(2, 1).values
            v["share_of_ties"] = float((top[:, 0] == top[:, 1]).double().mean())
            assert v["largest_difference"] < LIMITS[dtype] and v["share_of_other_answers"] < 0.02
            assert v["share_of_ties"] < 1e-3
    chosen, n = list(range(0, len(x), 100 if found.dry else 12)), 1000 if found.dry else 10_000
    phase = Phase("estimate", n, 500)
    on_cpu = counts(SamplingEngine(prepare(model), 10, SIGMA), x, names, chosen, phase)
    with found.check("counts under lattice noise: the CPU's, but for rounding in the network") as v:
        levels = levels_for(SIGMA, 16)
        engines = (
            SamplingEngine(prepare(model, device=where), 10, SIGMA, where, levels=levels) for where in ("cpu", device)
        )
        a, b = (counts(one, x, names, chosen[:10], phase) for one in engines)
        v["share_of_answers_that_differ"] = float(np.abs(a - b).sum() / 2 / a.sum())
        assert v["share_of_answers_that_differ"] < 1e-3
    for dtype in _dtypes(found):
        with found.check(f"counts, {dtype}: like the CPU's, and the same when drawn again") as v:
            sampling = SamplingEngine(prepare(model, device=device, dtype=dtype), 10, SIGMA, device)
            drawn = counts(sampling, x, names, chosen, phase)
            v["p_value"] = two_sample(on_cpu, drawn)
            assert v["p_value"] > 1e-6 and (drawn.sum(1) == n).all()
            assert (drawn == counts(sampling, x, names, chosen, phase)).all()
    sampling = SamplingEngine(prepare(model, device=device), 10, SIGMA, device)
    with found.check("counts: any order of blocks, any company in a pass") as v:
        blocks = phase.blocks
        some = chosen[:5]
        alone = np.stack([sampling.count(x[i], names[i], 0, phase, 0, blocks) for i in some])
        halves = [sampling.count(x[i], names[i], 0, phase, 1, blocks) for i in some]
        halves = [h + sampling.count(x[i], names[i], 0, phase, 0, 1) for h, i in zip(halves, some, strict=True)]
        assert (alone == np.stack(halves)).all()
        company = sampling.count_images(x[some], [names[i] for i in some], 0, phase, 0, blocks)
        v["draws_that_differ_in_company"] = int(abs(alone - company).sum() // 2)
        assert v["draws_that_differ_in_company"] <= 4
    _shared(found, model, x, names, chosen)
    if not found.dry:
        with found.check("memory: drawing on takes no more") as v:
            held = []
            for _ in range(3):
                for block in (100, 500, 1000):
                    sampling.count(x[0], names[0], 0, Phase("memory", 20 * block, block), 0, 20)
                held.append(torch.cuda.memory_allocated())
            v["bytes"] = held
            assert held[2] == held[1]


def compiled(found: Findings) -> None:
    """Counts of compiled networks: near eager ones, the same whatever was asked before, and without CUDA graphs."""
    model, x, _, names = trained()
    chosen, phase = list(range(0, len(x), 250 if found.dry else 50)), Phase("estimate", 2000, 500)
    draws = phase.draws * len(chosen)

    def sampling(network: torch.nn.Module) -> SamplingEngine:
        return SamplingEngine(network, 10, SIGMA, found.device)

    for dtype in ("bfloat16",) if found.dry else ("float32", "bfloat16"):
        eager = prepare(model, device=found.device, dtype=dtype)
        plain = counts(sampling(eager), x, names, chosen, phase)

        def other_sizes(one: SamplingEngine) -> None:
            for size in (20, 100) if found.dry else (20, 3, 100, 400):  # looks of --stopping radii, last groups
                one.count(x[0], names[0], 0, Phase("other", size, size), 0, 1)

        with found.check(f"compiled, {dtype}: eager's counts to rounding, whatever came before") as v:
            ready = prepare(model, device=found.device, dtype=dtype, compiled=True, rows=(500,))
            assert isinstance(ready, Compiled)
            first = sampling(ready)
            own = counts(first, x, names, chosen, phase)
            other_sizes(first)
            again = counts(first, x, names, chosen, phase)
            torch._dynamo.reset()
            second = sampling(prepare(model, device=found.device, dtype=dtype, compiled=True, rows=(500,)))
            other_sizes(second)
            later = counts(second, x, names, chosen, phase)
            v["share_other_than_eager"] = float(abs(own - plain).sum() / 2 / draws)
            v["differ_after_other_sizes"] = int(abs(own - again).sum() // 2)
            v["differ_if_others_came_first"] = int(abs(own - later).sum() // 2)
            assert v["share_other_than_eager"] < 5e-3
            assert v["differ_after_other_sizes"] == v["differ_if_others_came_first"] == 0
        with found.check(f"compiled, {dtype}: the same counts with CUDA graphs and without") as v:
            torch._dynamo.reset()
            # The same network: convolutions of few channels are others in an eager one.
            without = sampling(Compiled(ready.network, found.device, (500,), graphs=False))
            v["differ"] = int(abs(counts(without, x, names, chosen, phase) - own).sum() // 2)
            assert v["differ"] == 0
    torch._dynamo.reset()


def _shared(found: Findings, model: torch.nn.Module, x: torch.Tensor, names: Any, chosen: list[int]) -> None:
    """Passes that images share, as the looks of a stopping rule have them, against passes of one image."""
    sampling = SamplingEngine(prepare(model, device=found.device), 10, SIGMA, found.device, levels_for(SIGMA, 16))
    sizes = [20, 27, 36, 50, 66, 90] * (2 if found.dry else 20)
    places = [k % len(chosen) for k in range(len(sizes))]
    looks = [Phase("look", 20 * size, size) for size in sizes]
    asked = [Asked((names[chosen[at]],), phase, 1, 2) for at, phase in zip(places, looks, strict=True)]
    images = sampling.noise.placed(x[chosen])

    def one_by_one() -> list[NDArray[np.int64]]:
        each = zip(asked, places, strict=True)
        return [sampling.count(x[chosen[at]], a.names[0], 0, a.phase, 1, 2) for a, at in each]

    with found.check("looks of many images in passes of one shape: the same in any company, few passes") as v:
        shared = SharedPasses(sampling, 500)
        drawn = shared.count(asked, images, places, 0)
        v["passes"], v["passes_of_one_image"] = shared.passes, len(asked)
        back = shared.count(asked[::-1], images, places[::-1], 0)[::-1]
        assert all(map(np.array_equal, drawn, back))
        v["draws_that_differ_from_passes_of_one_image"] = int(
            abs(np.concatenate(drawn) - np.stack(one_by_one())).sum() // 2
        )
        assert v["draws_that_differ_from_passes_of_one_image"] <= 4
    with found.check("looks of many images: seconds of passes of one image over shared ones") as v:
        works = {
            "shared": lambda: _seconds(lambda: shared.count(asked, images, places, 0)),
            "own": lambda: _seconds(one_by_one),
        }
        seconds = alternate(works, 3)
        v["times"] = ratios(seconds["own"], seconds["shared"])


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()  # counts are read, so the device is done
    return time.perf_counter() - started


def counts(engine: SamplingEngine, x: torch.Tensor, names: Any, chosen: list[int], phase: Phase) -> NDArray[np.int64]:
    """Class counts ``(len(chosen), K)`` of a phase, eight images to a pass."""
    groups = [chosen[i : i + 8] for i in range(0, len(chosen), 8)]
    drawn = [engine.count_images(x[g], [names[i] for i in g], 0, phase, 0, phase.blocks) for g in groups]
    return np.concatenate(drawn)


def two_sample(a: NDArray, b: NDArray) -> float:
    """p-value of the hypothesis that two tables of counts ``(images, K)`` come from the same distributions.

    Pearson's chi-squared test of two samples, summed over images; classes with fewer than 20 counts are put together.
    """
    statistic, freedom = 0.0, 0
    for x, y in zip(a.astype(float), b.astype(float), strict=True):
        often = x + y >= 20
        x, y = (np.append(v[often], v[~often].sum()) for v in (x, y))
        x, y = x[x + y > 0], y[x + y > 0]
        if len(x) > 1:
            n, m = x.sum(), y.sum()
            statistic += (((m / n) ** 0.5 * x - (n / m) ** 0.5 * y) ** 2 / (x + y)).sum()
            freedom += len(x) - 1
    return float(chi2.sf(statistic, freedom)) if freedom else 1.0


def _noise(found: Findings) -> None:
    device, draws = found.device, 40 if found.dry else 400
    with found.check("noise: standard normal, from its seed alone") as v:
        one = standard_normal([5], draws, SHAPE, device)
        flat = one.flatten().cpu().numpy()
        v["ks_p_value"] = float(kstest(flat[:: max(1, len(flat) // 100_000)], "norm").pvalue)
        v["mean"], v["std"] = float(flat.mean()), float(flat.std())
        assert v["ks_p_value"] > 1e-4 and abs(v["mean"]) < 0.02 and abs(v["std"] - 1) < 0.02
        both = standard_normal([9, 5], draws, SHAPE, device)
        assert torch.equal(both[draws:], one) and both.is_contiguous(memory_format=torch.channels_last)
        other = both[:draws].flatten().cpu().numpy()
        v["correlation_with_other_seed"] = float(np.corrcoef(flat, other)[0, 1])
        assert abs(v["correlation_with_other_seed"]) < 6 / len(flat) ** 0.5


def _lattice(found: Findings) -> None:
    draws, keys = 20 if found.dry else 500, [5, 2**64 - 1]
    words = key_words(keys, found.device)
    first = torch.full((), 3, dtype=torch.int64, device=found.device)
    with_kernel = not found.dry and not compiler_problem(found.device)
    for name in ("lattice_torch", *(["lattice_kernel"] if with_kernel else [])):
        how = importlib.import_module(f"acr_ray.smoothing.{name}")
        for sigma in (0.25, 0.5, 4.0):
            law = LatticeLaw(sigma, 255)
            with found.check(f"lattice noise, {name}, sigma {sigma:g}: the CPU's bit for bit") as v:
                here = LatticeDraws(law)(keys, 3, draws, 3071)
                started = time.perf_counter()
                there = how.steps(how.DeviceTable.of(law, found.device), words, first, draws, 3071).cpu().numpy()
                v["seconds_first_time"] = time.perf_counter() - started
                assert (there == here).all()
    law = LatticeLaw(0.5, 255)
    with found.check("lattice noise: copies of images are the CPU's bit for bit") as v:
        images, phase = torch.rand(2, 3, 32, 32, generator=_seeded(2)), Phase("estimate", 4 * draws, draws)
        for dtype in (torch.float32, torch.bfloat16):
            made = []
            for device in ("cpu", found.device):
                noise = LatticeNoise(law, device, dtype)
                # Cloned: the next copies may be made in the same memory.
                made.append([c.cpu().clone() for c in noise.blocks(noise.placed(images), ["a", "b"], 7, phase, 1, 3)])
            assert all(map(torch.equal, *made)) and made[0][0].dtype == dtype


def _dtypes(found: Findings) -> tuple[str, ...]:
    return ("float32", "bfloat16") if found.dry else tuple(LIMITS)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
