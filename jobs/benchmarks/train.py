"""The recipe's optimizer step against the same step written plainly, and against the passes it cannot avoid.

Ours runs in a process started as the workers of a run are, the plain one in a process started as a user's script
would be; both have the same weights and images, one thread on a CPU, and take turns. The weights come from a short
training on generated images, so that a realistic share of the noise draws is classified correctly. On a CPU seconds
are those of the processes' own time, page faults included, so that what else runs on the machine counts less.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
from functools import partial
from typing import Any

from acr_ray.settings import Recipe
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from acr_ray.settings.recipe import AttackSettings, DataSettings, ModelSettings, TrainingSettings
from jobs.benchmarks.figures import alternate, figure, ratios
from jobs.benchmarks.processes import Worker, together

WORKS = "jobs.benchmarks.train_works"
# network: m, T, sigma, epsilon, batch
MODELS = {
    "cpu": {"cifar_resnet20": (4, 3, 0.25, 0.25, 256)},
    "cuda": {"resnet50": (1, 2, 0.5, 1.0, 256), "cifar_resnet110": (4, 3, 0.25, 0.25, 256)},
}
WARM_STEPS, WARM_RATE = 18, 0.1
WAYS = {  # of two workers beside each other, and what is said of their rate over twice that of one
    "shared": ("scaling", "of twice one worker's samples a second, by two that exchange gradients"),
    "waiting": ("scaling_waiting", "of the same, by two that only wait for each other after each step"),
    "apart": ("scaling_apart", "of the same, by two that know nothing of each other"),
}
COMPUTE_BOUND = 2  # batches of the recipe for each worker: a step so long that the exchange counts for little
KEYS = ("vs_plain", "share_of_unavoidable", *(key for key, _ in WAYS.values()), "scaling_small")
LEAST_CORRECT = 0.6  # of the draws, for figures that speak of a trained model


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", metavar="M,M", help="networks [default: by device]")
    parser.add_argument("--rounds", type=int, metavar="K", help="steps of each [default: 7; --quick: 3]")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), help="of ours [default: float32; cuda: bfloat16]"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile ours")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print a table, and return the JSON object's fields."""
    known = MODELS[options.device]
    names = options.models.split(",") if options.models else list(known)
    found = {name: _model(name, known.get(name, next(iter(known.values()))), options) for name in names}
    first = found[names[0]]
    shown = {key: first[key] for key in KEYS if key in first}
    return {**shown, "models": found}


def recipe_of(
    name: str, sizes: tuple[int, int, float, float, int], precision: str, compiled: bool, batch: int
) -> Recipe:
    """The step that is measured; its learning rate is that of the short training before."""
    m, steps, sigma, epsilon, _ = sizes
    return Recipe(
        name="bench",
        data=DataSettings(dataset="cifar10"),
        model=ModelSettings(architecture=name),
        training=TrainingSettings(
            sigma=sigma,
            epochs=2,
            batch_size=batch,
            m=m,
            learning_rate=WARM_RATE,
            precision=precision,
            compile=compiled,
        ),
        attack=AttackSettings(enabled=True, steps=steps, epsilon=epsilon),
    )


def _model(name: str, sizes: tuple[int, int, float, float, int], options: argparse.Namespace) -> dict[str, Any]:
    precision = options.precision or ("bfloat16" if options.device == "cuda" else "float32")
    rounds, batch = options.rounds or (3 if options.quick else 7), sizes[4] // (2 if options.quick else 1)
    recipe = recipe_of(name, sizes, precision, options.compile, batch)
    common = {"device": options.device, "images": 2048}
    with Worker(WORKS, WORKER_ENVIRONMENT) as ours, Worker(WORKS, {}) as theirs:
        ours.call("set_up", recipe=recipe.model_dump(mode="json"), **common)
        weights = ours.call("learn", steps=WARM_STEPS)
        ours_plain = recipe.change({"training.precision": "float32", "training.compile": False})
        theirs.call("set_up", recipe=ours_plain.model_dump(mode="json"), **common)
        _, active, _ = ours.call("ours", number=0, weights=weights)  # once unmeasured: kernels are chosen
        ours.call("unavoidable", active=active)
        theirs.call("plain", number=0, weights=weights)
        seconds: dict[str, list[float]] = {"ours": [], "unavoidable": [], "plain": []}
        shares: list[list[int]] = []
        for number in range(rounds):
            turn = ["ours", "unavoidable", "plain"]
            # The active shares of this batch are needed first; the order of the other two alternates.
            took, active, _ = ours.call("ours", number=number, weights=weights)
            shares.append(active)
            seconds["ours"].append(took)
            for work in turn[1:] if number % 2 == 0 else turn[:0:-1]:
                if work == "plain":
                    seconds[work].append(theirs.call("plain", number=number, weights=weights)[0])
                else:
                    seconds[work].append(ours.call("unavoidable", active=active))
    found: dict[str, Any] = {
        "vs_plain": ratios(seconds["plain"], seconds["ours"]),
        "share_of_unavoidable": ratios(seconds["unavoidable"], seconds["ours"]),
        "samples_per_s": {work: figure([batch / s for s in times]) for work, times in seconds.items()},
        "active": [figure([a[t] / batch for a in shares]) for t in range(sizes[1])],
        "batch": batch,
        "precision": precision,
        "compile": options.compile,
    }
    if not options.quick and options.device == "cpu":
        small = _scaling(recipe, common, batch, batch // 2, ["shared"], rounds=20, steps=3)
        each = COMPUTE_BOUND * batch
        found |= _scaling(recipe, common, each, each, list(WAYS), rounds=12, steps=2)
        found["scaling_small"] = small["scaling"]
    _print(name, recipe, found)
    return found


def _scaling(
    recipe: Recipe, common: dict[str, Any], alone: int, each: int, ways: list[str], *, rounds: int, steps: int
) -> dict[str, dict]:
    """Noisy samples a second of two workers over twice those of one, by the clock on the wall. Needs two free cores.

    ``scaling``: DDP workers that share each global batch and exchange gradients. A machine's second core is not a
    whole one, and workers in step go at the pace of whichever is slower at that moment, so the same two processes
    also work without exchanging anything: ``scaling_waiting``, the most that any synchronous training has here, and
    ``scaling_apart``. Rounds are short and many: what else runs on the machine changes by the second.

    Args:
        alone: batch of the one worker. Where it is that of ``each`` too, all steps are alike, and a batch that is
            slow for its size (beyond what memory keeps at hand) slows all of them.
        each: batch of each of two.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def given(batch: int) -> dict[str, Any]:
        return {"recipe": recipe.change({"training.batch_size": batch}).model_dump(mode="json"), **common}

    with contextlib.ExitStack() as stack:
        one, *pair = (stack.enter_context(Worker(WORKS, WORKER_ENVIRONMENT)) for _ in range(3))
        one.call("set_up", **given(alone))
        shared = [given(2 * each) | {"rank": rank, "world": 2, "port": port} for rank in range(2)]
        together(*((worker, "set_up", some) for worker, some in zip(pair, shared, strict=True)))

        def rate(workers: list[Worker], way: str) -> float:
            return sum(together(*((worker, "throughput", {"steps": steps, "way": way}) for worker in workers)))

        works = {"alone": partial(rate, [one], "apart")} | {way: partial(rate, pair, way) for way in ways}
        for work in works.values():
            work()
        rates = alternate(works, rounds)
    twice = [2 * value for value in rates["alone"]]
    return {WAYS[way][0]: ratios(rates[way], twice) for way in ways}


def _print(name: str, recipe: Recipe, found: dict[str, Any]) -> None:
    t, active = recipe.training, " ".join(f"{100 * share['median']:.0f}" for share in found["active"])
    print(f"{name}, m = {t.m}, T = {recipe.attack.steps}, {found['batch']} samples a step, {t.precision}")
    print(f"  still correct before each PGD step: {active} %")
    if found["active"][0]["median"] < LEAST_CORRECT:
        print(f"  fewer than {100 * LEAST_CORRECT:.0f} % of the draws are correct: not a trained-enough model")
    for work, rate in found["samples_per_s"].items():
        print(f"  {work:12} {rate['median']:9,.1f} samples/s ({rate['min']:,.1f} to {rate['max']:,.1f})")
    for key, text in (
        ("vs_plain", "times as fast as written plainly"),
        ("share_of_unavoidable", "of our time is passes that the recipe cannot avoid"),
        *((key, f"{text}; {COMPUTE_BOUND} batches each") for key, text in WAYS.values()),
        ("scaling_small", "of twice one worker's, by two that exchange gradients; half a batch each"),
    ):
        if key in found:
            f = found[key]
            print(f"  {f['median']:.3f} ({f['min']:.3f} to {f['max']:.3f}) {text}")
