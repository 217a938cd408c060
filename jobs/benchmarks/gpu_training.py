"""``bench gpu``: the training step on the card against the CPU, in every precision and method."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import acr_ray.training.step as stepping
from acr_ray.data import ImageSet, open_images
from acr_ray.data.sampling import view_seeds
from acr_ray.settings import Recipe, load_recipe
from acr_ray.settings.recipe import AttackSettings
from acr_ray.training.attack import HALF_SCALE, attack_every_row, attack_noise
from acr_ray.training.control.messages import Request
from acr_ray.training.graphed import GraphedAttack
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer
from acr_ray.training.optimizer import begin_momentum
from acr_ray.training.passes import PassCounter
from acr_ray.training.precision import in_precision
from acr_ray.training.step import StepInput
from acr_ray.training.sums import Sums
from jobs.benchmarks.gpu_engine import trained
from jobs.benchmarks.gpu_narrow import gradients
from jobs.benchmarks.gpu_parts import Findings
from jobs.benchmarks.train_works import images_of

METHODS = ("gaussian", "smoothadv", "consistency", "macer", "smoothmix", "catrs", "stability")
PRECISIONS = ("float32", "bfloat16", "float16")
LOSS, WEIGHTS = {"float32": 1e-4}, {"float32": 2e-3}  # allowed differences; lower precisions: 0.05 each


def training(found: Findings) -> None:
    """Attack, losses, optimizer, resume, waits."""
    _attack(found)
    _methods(found)
    _optimizer(found)
    _first_steps(found)
    gradients(found)
    _compiled_recipe(found)
    for precision in ("float32",) if found.dry else ("float32", "float16"):
        _resume(found, precision)
    if not found.dry:
        _waits(found)


def _attack(found: Findings) -> None:
    model, x, y, _ = trained()
    few = 32 if found.dry else 256
    x, y = x[:few].repeat_interleave(4, 0), y[:few].repeat_interleave(4)
    noise = 0.25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    on_card = copy.deepcopy(model).to(found.device)
    for precision in PRECISIONS[:2] if found.dry else PRECISIONS:
        for norm, buckets, looks in (("l2", 0, ()), ("linf", 8, (True, False, True))):
            with found.check(f"attack, {precision}, {norm}, {buckets} buckets, looks {looks}") as v:
                settings = AttackSettings(enabled=True, steps=3, epsilon=0.25, norm=norm)
                a = attack_noise(model, x, y, noise, settings, buckets=buckets, look_first=looks)
                b = attack_noise(
                    in_precision(on_card, precision, found.device),
                    *(t.to(found.device) for t in (x, y, noise)),
                    settings,
                    buckets=buckets,
                    look_first=looks,
                    scale=HALF_SCALE if precision == "float16" else 1.0,
                )
                moved, length = b.noise.cpu(), noise.flatten(1).norm(dim=1)
                near = (a.noise - moved).flatten(1).norm(dim=1) / length < (1e-3 if precision == "float32" else 0.1)
                v["still_correct_cpu"], v["still_correct"] = a.active.tolist(), b.active.tolist()
                v["share_of_rows_alike"] = float(near.double().mean())
                v["length_changed_by"] = float((moved.flatten(1).norm(dim=1) / length - 1).abs().max())
                assert v["length_changed_by"] < 1e-4
                assert v["share_of_rows_alike"] > (0.99 if precision == "float32" else 0.95)
    if not found.dry:
        with found.check("attack captured as a CUDA graph: as without, also after the weights have changed") as v:
            settings = AttackSettings(enabled=True, steps=3, epsilon=0.25)
            given, network = (x.cuda(), y.cuda(), noise.cuda()), in_precision(on_card, "bfloat16", "cuda")
            graphed = GraphedAttack(network, settings, 1.0, PassCounter(on_card))
            for _ in range(2):
                own = attack_every_row(network, *given, settings)
                replayed = graphed(*given)
                v["still_correct"] = replayed.active.tolist()
                v["largest_difference"] = float((own.noise - replayed.noise).abs().max())
                assert v["largest_difference"] == 0 and torch.equal(own.active, replayed.active)
                with torch.no_grad():
                    for parameter in on_card.parameters():
                        parameter.mul_(0.9)


@contextlib.contextmanager
def same_noise() -> Iterator[None]:
    """Training noise of the CPU's generator on any device, so that a step can be compared."""
    drawn = stepping.training_noise
    stepping.training_noise = lambda *a: drawn(*a[:-1], "cpu").to(a[-1])
    try:
        yield
    finally:
        stepping.training_noise = drawn


def _methods(found: Findings) -> None:
    images = open_images("digits", None, "train").subset(range(0, 1297, 20))
    common = {"training.epochs": 2, "training.milestones": (1,), "training.e_t": 0, "training.learning_rate": 0.01}
    paper = {"discard.enabled": False, "reweigh.enabled": False}
    cases: list[tuple[str, dict[str, Any]]] = [(f"digits-{method}", {}) for method in METHODS]
    cases += [("digits-smoothadv", {"method.attack": "ddn"}), ("digits-macer", {"method.deferred": False})]
    cases += [("digits", paper), ("digits", paper | {"training.accumulate": 3})]
    cases += [("digits", paper | {"training.channels_last": False})]
    for name, more in cases[:: 4 if found.dry else 1]:
        recipe = load_recipe(name).change(common | {"training.batch_size": 65 * load_recipe(name).training.m} | more)
        with same_noise():
            on_cpu = Trainer(recipe, images, 0, Group())
            on_cpu.run(until=1)
            for precision in PRECISIONS:
                with found.check(f"an epoch of {name} {more or ''}, {precision}, from the same noise") as v:
                    own = recipe.change({"training.precision": precision})
                    trainer = Trainer(own, images, 0, Group(found.device), found.device)
                    trainer.run(until=1)
                    a, b = on_cpu.progress.history[0], trainer.progress.history[0]
                    v["loss_cpu"], v["loss"] = a["loss"], b["loss"]
                    v["largest_difference_of_a_weight"] = _apart(on_cpu.module, trainer.module)
                    assert abs(a["loss"] - b["loss"]) <= LOSS.get(precision, 0.05) * abs(a["loss"])
                    assert v["largest_difference_of_a_weight"] < WEIGHTS.get(precision, 0.05)


def _apart(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.cpu().double() - b.cpu().double()).abs().max()) for a, b in pairs)


def _optimizer(found: Findings) -> None:
    """The fused kernel against torch's loop, also where the scaler skips steps."""

    def weights(device: str, overflow: set[int]) -> torch.nn.Module:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 3)).to(device)
        used = [torch.full((1 << k,), 3e37, device=device) for k in range(4, 16) for _ in range(8)]
        del used  # memory that is not zero
        fused = device != "cpu"
        optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4, fused=fused)
        if fused:
            begin_momentum(optimizer)
        scaler = torch.amp.GradScaler(device, init_scale=1024.0, enabled=bool(overflow))
        generator = torch.Generator().manual_seed(2)
        for number in range(12):
            optimizer.zero_grad(set_to_none=True)
            loss = network(torch.randn(4, 3, 8, 8, generator=generator).to(device)).square().mean()
            scaler.scale(loss * (float("inf") if number in overflow else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
        return network

    for name, overflow in (("", set()), (", a step skipped", {5}), (", the first two steps skipped", {0, 1})):
        with found.check(f"fused SGD{name}: like torch's loop") as v:
            v["largest_difference_of_a_weight"] = _apart(weights("cpu", overflow), weights(found.device, overflow))
            assert v["largest_difference_of_a_weight"] < 1e-4


def _first_steps(found: Findings) -> None:
    """A deep network whose batch statistics are fresh overflows in float16; training must come out of it."""
    network = "cifar_resnet20" if found.dry else "cifar_resnet110"
    for name in ("gaussian",) if found.dry else ("gaussian", "smoothadv"):
        for precision in ("bfloat16",) if found.dry else ("bfloat16", "float16"):
            with found.check(f"first steps of {network}, {name}, {precision}: finite") as v:
                recipe = load_recipe(f"cifar10-{name}-0.5").change(
                    {
                        "model.architecture": network,
                        "training.epochs": 1,
                        "training.milestones": (),
                        "training.e_t": 0,
                        "training.precision": precision,
                        "training.batch_size": 8 if found.dry else 64,
                    }
                )
                images = images_of(network, (2 if found.dry else 8) * recipe.inputs_per_step)
                trainer = Trainer(recipe, images, 0, Group(found.device), found.device)
                trainer.run()
                v["loss"], v["scale"] = trainer.progress.history[-1]["loss"], trainer.scaler.get_scale()
                assert all(bool(torch.isfinite(p).all()) for p in trainer.module.parameters())


def _compiled_recipe(found: Findings) -> None:
    from torch._dynamo.utils import counters

    images = open_images("digits", None, "train").subset(range(0, 1297, 16 if found.dry else 2))
    recipe = load_recipe("digits").change(
        {
            "training.epochs": 3,
            "training.e_t": 1,
            "training.milestones": (),
            "reweigh.every": 1,
            "training.precision": "bfloat16",
            "discard.enabled": False,
        }
    )
    with found.check("the paper's recipe, compiled, bfloat16: near the eager one") as v:
        losses = []
        for compiled, buckets in ((False, None), (True, 2), (True, None)):
            torch._dynamo.reset()
            counters.clear()
            own = recipe.change({"training.compile": compiled, "attack.buckets": buckets})
            trainer = _trainer(own, images, found)
            trainer.run()
            losses.append(trainer.progress.history[-1]["loss"])
        v["loss_eager"], v["loss_with_buckets"], v["loss"] = losses
        v["graphs"] = counters["stats"].get("unique_graphs", 0)
        assert max(losses) - min(losses) < 0.1 and v["graphs"]
    if not found.dry:
        with found.check("passes of compiled steps and of p_A estimates as CUDA graphs: as without") as v:
            assert trainer.step._passes is not None and trainer.step._passes._captured.kept
            without = _trainer(own, images, found)
            without.step._passes, without.engine.model = None, without.networks.network
            without.run()
            v["largest_difference_of_a_weight"] = _apart(trainer.module, without.module)
            a, b = trainer.progress.history[-1], without.progress.history[-1]
            v["passes"], v["passes_without"] = ([one["forward_passes"], one["backward_passes"]] for one in (a, b))
            assert v["largest_difference_of_a_weight"] == 0 and v["passes"] == v["passes_without"]
    torch._dynamo.reset()


def _resume(found: Findings, precision: str) -> None:
    class Stop(Exception):
        pass

    images = open_images("digits", None, "train").subset(range(0, 1297, 8 if found.dry else 2))
    recipe = load_recipe("digits").change(
        {
            "training.epochs": 3,
            "training.e_t": 1,
            "training.milestones": (2,),
            "reweigh.every": 1,
            "training.precision": precision,
            "training.batch_size": 64,
        }
    )
    with found.check(f"a run resumed within an epoch, {precision}: the same to the bit") as v:
        straight = _trainer(recipe, images, found)
        straight.run()
        with tempfile.TemporaryDirectory() as folder:
            first, asked = _trainer(recipe, images, found), [0]
            first.run(until=2)

            def wanted() -> Request:
                asked[0] += 1
                return Request.SAVE if asked[0] == 2 else Request(0)

            def save(requests: Request) -> None:
                first.save(Path(folder))
                raise Stop

            first.worker_sync.requests, first.worker_sync.seconds = wanted, 0.0
            with contextlib.suppress(Stop):
                first.run(Hooks(between_steps=save))
            second = _trainer(recipe, images, found)
            second.load(Path(folder))
            v["resumed_at"] = f"epoch {second.progress.epoch}, step {second.progress.partial.step}"
            second.run()
        v["largest_difference_of_a_weight"] = _apart(straight.module, second.module)
        assert v["largest_difference_of_a_weight"] == 0


def _trainer(recipe: Recipe, images: ImageSet, found: Findings) -> Trainer:
    return Trainer(recipe, images, 0, Group(found.device), found.device)


def _waits(found: Findings) -> None:
    """How often the host waits for the card in a step, by torch's own count."""
    recipe = load_recipe("cifar10-0.5").change({"model.architecture": "cifar_resnet20", "discard.enabled": False})
    images = images_of("cifar_resnet20", 64)
    trainer = _trainer(recipe, images, found)
    mine = np.arange(recipe.inputs_per_step)
    x = images.load(mine % 64, view_seeds(0, 0, mine)).pin_memory()
    y = torch.from_numpy(images.labels[mine % 64]).pin_memory()
    for attacks in (False, True):
        sums, given = Sums(recipe.attack.steps, "cuda"), StepInput(x, y, mine, len(mine), 0, 0, 10, attacks)
        trainer.step(given, sums)
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            trainer.step(given, sums)
            torch.cuda.set_sync_debug_mode("default")
        lines = [f"{Path(w.filename).name}:{w.lineno}" for w in heard if "called a synchronizing" in str(w.message)]
        with found.check(f"waits for the card in a step {'with' if attacks else 'without'} the attack") as v:
            v["waits"], v["in"] = len(lines), ", ".join(sorted(set(lines)))
            # Choosing rows waits: for their number, and for the place to put them.
            assert len(lines) <= (2 * recipe.attack.steps if attacks else 0)
