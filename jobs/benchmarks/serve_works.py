"""What `benchmarks.serve` compares the service with. Runs in a process of its own, with one thread."""

from __future__ import annotations

import time

import torch

from acr_ray.certification.procedure import CertificationProcedure, sparse
from acr_ray.models import ModelCard, build_model, load_checkpoint, save_checkpoint
from acr_ray.settings import CertifySettings
from acr_ray.settings.datasets import grid_of
from acr_ray.settings.serve import ServeSettings
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.lattice_law import levels_for
from acr_ray.smoothing.plan import Phase
from acr_ray.storage import Folder

SIGMA, BLOCK = 0.25, 500
torch.set_num_threads(1)


def write_model(folder: str) -> str:
    """A fresh network for the digits whose answers to noise are neither all the same nor all by chance."""
    model = build_model("digits_resnet", 10, (1, 8, 8), (0.5,), (0.25,), seed=1)
    with torch.no_grad():
        model[-1].fc.weight.mul_(3)
    names = tuple(str(label) for label in range(10))
    card = ModelCard("digits_resnet", 10, (1, 8, 8), (0.5,), (0.25,), names, sigma=SIGMA, dataset="digits")
    save_checkpoint(Folder(folder), model, card)
    return folder


def _engine(folder: str) -> tuple[SamplingEngine, torch.Tensor]:
    model, card = load_checkpoint(folder)
    images = torch.rand((64, *card.shape), generator=torch.Generator().manual_seed(0))
    levels = levels_for(SIGMA, grid_of(card.dataset))
    return SamplingEngine(prepare(model), card.num_classes, SIGMA, "cpu", levels), images


def engine_rate(folder: str, seconds: float) -> float:
    """Noise draws a second of one image, in blocks of 500, as a run of certify draws them."""
    engine, images = _engine(folder)
    engine.count(images[0], "warm", 0, Phase("rate", 10**9, BLOCK), 0, 20)
    started, block = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        engine.count(images[0], "rate", 0, Phase("rate", 10**9, BLOCK), block, block + 20)
        block += 20
    return block * BLOCK / (time.perf_counter() - started)


def one_by_one(folder: str, seconds: float) -> float:
    """Images a second that are certified one after the other by the rule of ``--stopping radii``."""
    (engine, images), service = _engine(folder), ServeSettings()
    values = {"sigma": SIGMA, "n": service.max_draws, "stopping": "radii", "dataset": "digits", "block": BLOCK}
    procedure = CertificationProcedure(CertifySettings(**values))
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        image, name, counts = images[done % len(images)], f"image {done}", []
        while procedure.verdict(counts, name, 0) is None:
            phase = procedure.phases[len(counts)]
            counts.append(sparse(engine.count(image, name, 0, phase, 0, phase.blocks)))
        done += 1
    return done / (time.perf_counter() - started)
