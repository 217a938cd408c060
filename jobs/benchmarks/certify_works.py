"""The pieces of work that `benchmarks.certify` times. Each runs in a process of its own, with one thread."""

from __future__ import annotations

import resource
import time
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acr_ray.models import build_model
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.int8_calibration import calibrate
from acr_ray.smoothing.plan import Phase
from acr_ray.training.timing import wait_for

SIGMA = 0.25
SHAPES = {"digits_resnet": (1, 8, 8)}
FORMS = ("contiguous", "channels-last", "prepared")
torch.set_num_threads(1)


def shape_of(name: str) -> tuple[int, int, int]:
    return SHAPES.get(name, (3, 32, 32) if name.startswith("cifar") else (3, 224, 224))


@lru_cache(maxsize=4)
def model_in(form: str, name: str, device: str, dtype: str = "float32") -> nn.Module:
    """A fresh network as users have it, with weights in another order, or as the engine has it."""
    shape = shape_of(name)
    classes = 1000 if shape[1] == 224 else 10
    model = build_model(name, classes, shape, (0.5,) * shape[0], (0.25,) * shape[0], seed=0).eval()
    if form == "prepared":
        int8 = calibrate(model, [_noisy(name)]) if dtype == "int8" else None
        return prepare(model, device=device, dtype=dtype, compiled=device == "cuda", int8=int8)
    last = torch.channels_last if form == "channels-last" else torch.contiguous_format
    return model.requires_grad_(False).to(device=device, memory_format=last)


def _noisy(name: str) -> Tensor:
    """A few noisy images to calibrate on: which they are changes no time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, *shape_of(name), generator=generator)
    return images + SIGMA * torch.randn(images.shape, generator=generator)


def image_of(name: str, number: int = 0) -> Tensor:
    return torch.rand(shape_of(name), generator=torch.Generator().manual_seed(number))


def sweep(name: str, n: int, device: str, blocks: tuple[int, ...], dtype: str) -> list[dict[str, Any]]:
    """Forward passes a second by form and block: the best of two runs of about 400 rows each."""
    found = []
    for form in FORMS if len(blocks) > 2 else FORMS[1:]:
        for block in blocks:
            passes = max(1, 400 // block)
            _forward(name, block, form, device, dtype, 1)
            seconds = min(_forward(name, block, form, device, dtype, passes) for _ in range(2))
            found.append({"form": form, "block": block, "per_second": passes * block / seconds})
    return found


def limit(name: str, n: int, device: str, block: int, form: str, dtype: str) -> float:
    """Seconds of n rows through the network and nothing else; whole blocks, scaled to n."""
    passes = -(-n // block)
    return _forward(name, block, form, device, dtype, passes) * n / (passes * block)


def _forward(name: str, block: int, form: str, device: str, dtype: str, passes: int) -> float:
    model, last = model_in(form, name, device, dtype), form != "contiguous"
    rows = torch.randn(block, *shape_of(name), device=device)
    rows = rows.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    with torch.inference_mode():
        wait_for(device)
        started = time.perf_counter()
        for _ in range(passes):
            model(rows)
        wait_for(device)
    return time.perf_counter() - started


def engine(name: str, n: int, device: str, block: int, dtype: str, images: int = 1) -> float:
    """Seconds of n draws of each image, as a sampler draws them, scaled from whole blocks to n."""
    model, shape = model_in("prepared", name, device, dtype), shape_of(name)
    sampling = SamplingEngine(model, 1000 if shape[1] == 224 else 10, SIGMA, device)
    phase = Phase("estimate", n, min(block, n))
    started = time.perf_counter()
    for number in range(images):
        counts = sampling.count(image_of(name, number), f"bench/{number}", 0, phase, 0, phase.blocks)
        assert counts.sum() == n
    return (time.perf_counter() - started) * n * images / sampling.evaluations


def cohen(name: str, n: int, device: str, block: int) -> float:
    """Seconds of n draws by the loop of Cohen et al. (2019), written from its description: ``_sample_noise``."""
    model, image = model_in("contiguous", name, device), image_of(name).to(device)
    counts = np.zeros(1000 if shape_of(name)[1] == 224 else 10, dtype=int)
    started = time.perf_counter()
    with torch.no_grad():
        left = n
        while left > 0:
            size = min(block, left)
            left -= size
            batch = image.repeat((size, 1, 1, 1))
            predictions = model(batch + torch.randn_like(batch) * SIGMA).argmax(1)
            for answer in predictions.cpu().numpy():
                counts[answer] += 1
    return time.perf_counter() - started


def art(name: str, n: int, device: str, batch: int | None = None) -> float:
    """Seconds of ``PyTorchRandomizedSmoothing.certify``, with ART's default batch size (32) where none is given."""
    classifier = _art_classifier(name, device)
    image = image_of(name).numpy()[None]
    started = time.perf_counter()
    classifier.certify(image, n=n, **({"batch_size": batch} if batch else {}))
    return time.perf_counter() - started


@lru_cache(maxsize=2)
def _art_classifier(name: str, device: str) -> Any:
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    return PyTorchRandomizedSmoothing(
        model=model_in("contiguous", name, device),
        loss=nn.CrossEntropyLoss(),
        input_shape=shape_of(name),
        nb_classes=1000 if shape_of(name)[1] == 224 else 10,
        clip_values=None,
        sample_size=1,
        scale=SIGMA,
        device_type="gpu" if device == "cuda" else "cpu",
    )


def memory(n: int, device: str) -> float:
    """MB by which n draws of a digit raise this process's peak; a first small run is not counted."""
    engine("digits_resnet", 1000, device, 500, "float32")
    before = peak_mb()
    engine("digits_resnet", n, device, 500, "float32")
    return peak_mb() - before


def art_memory(n: int) -> float:
    """The same of ART."""
    art("digits_resnet", 1000, "cpu")
    before = peak_mb()
    art("digits_resnet", n, "cpu")
    return peak_mb() - before


def peak_mb() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
