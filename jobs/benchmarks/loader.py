"""Does the input pipeline feed a training step? Images a second read, decoded and cropped, against what it takes in.

The images are generated: JPEGs of ImageNet's usual size (500 x 375, about 100 kB), in class folders, and packed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from acr_ray.data import ImageSet, batches, open_images
from acr_ray.data.device_decoding import DeviceDecoder
from acr_ray.data.pack import write_pack
from acr_ray.models import build_model
from acr_ray.training.timing import wait_for
from jobs.benchmarks.figures import figure

BATCH, WIDTH, HEIGHT, EPOCHS = 32, 500, 375, 4
ON_GPU = ", decoded on the GPU"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, metavar="K", help="generated images [default: 256; --quick: 48]")
    parser.add_argument("--loader-workers", type=int, default=2, metavar="K", help="processes that decode [default: 2]")
    parser.add_argument("--rounds", type=int, metavar="K", help="passes over the images [default: 5; --quick: 2]")
    parser.add_argument("--architecture", default="resnet50", help="network whose step is fed [default: resnet50]")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print a table, and return the JSON object's fields."""
    count, rounds = options.images or (48 if options.quick else 256), options.rounds or (2 if options.quick else 5)
    with tempfile.TemporaryDirectory() as temporary:
        root = write_images(Path(temporary) / "folders", count)
        folders = open_images("imagenet", str(root), "train")
        sets: dict[str, ImageSet] = {"folders": folders}
        for name, side in (("packed", None), ("packed at 320", 320)):
            write_pack(folders, Path(temporary) / name / "train", side=side)
            sets[name] = open_images("imagenet", str(Path(temporary) / name), "train")
        works = {(name, workers): images for name, images in sets.items() for workers in (0, options.loader_workers)}
        if options.device == "cuda":  # data.decode = gpu
            works |= {(f"{name}{ON_GPU}", workers): images for (name, workers), images in list(works.items())}
        rates: dict[tuple[str, int], list[float]] = {key: [] for key in works}
        for number in range(rounds + 1):
            for key, images in works.items():
                device = options.device if key[0].endswith(ON_GPU) else None
                rate = images_per_second(images, key[1], number, device)
                if number:  # the first pass fills the page cache
                    rates[key].append(rate)
    appetite = _appetite(options.architecture, options.device, rounds)
    found = {f"{name}, {workers} processes": figure(values) for (name, workers), values in rates.items()}
    for name, value in found.items():
        print(f"{name:28} {value['median']:8.1f} images/s ({value['min']:.1f} to {value['max']:.1f})")
    eaten = figure(appetite)
    print(f"{options.architecture} step on {options.device:12} {eaten['median']:8.1f} images/s (noisy ones, m = 1)")
    best = max(found, key=lambda name: found[name]["median"])
    return {"images_per_s": found[best], "appetite_per_s": eaten, "best": best, "pipelines": found}


def write_images(root: Path, count: int) -> Path:
    """Write ImageNet's folders of smooth random pictures with some grain, which compress as photographs do."""
    rng = np.random.default_rng(0)
    for top, number in (("train", count), ("val", 1)):
        folder = root / top / "n01440764"
        folder.mkdir(parents=True)
        for i in range(number):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
            grain = rng.normal(0, 14, (HEIGHT, WIDTH, 3))
            pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:06d}.JPEG", quality=90)
    return root


def images_per_second(images: ImageSet, workers: int, epoch: int, decode_on: str | None = None) -> float:
    """Images read a second; ``decode_on``: a device that decodes them, None: the processor."""
    # Several epochs in one plan: starting loader processes is paid once in an epoch of a million images.
    rng = np.random.default_rng(epoch)
    order = np.concatenate([rng.permutation(len(images)) for _ in range(EPOCHS)])
    plan = [(order[at : at + BATCH], order[at : at + BATCH]) for at in range(0, len(order), BATCH)]
    decoder = DeviceDecoder(images, decode_on) if decode_on else None
    started = time.perf_counter()
    read = sum(len(x) for x, _ in batches(images, plan, workers, decoder=decoder))
    wait_for(decode_on or "cpu")
    return read / (time.perf_counter() - started)


def _appetite(architecture: str, device: str, rounds: int) -> list[float]:
    """Images a second that forward, backward and update of plain training on noise take in."""
    rows, steps = (2, 1) if device == "cpu" else (256, 20)
    model = build_model(architecture, 1000, (3, 224, 224), (0.5,) * 3, (0.25,) * 3, seed=0)
    model = model.train().to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.rand(rows, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
    y = torch.zeros(rows, dtype=torch.int64, device=device)
    rates = []
    for number in range(rounds + 1):
        wait_for(device)
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x + 0.25 * torch.randn_like(x)), y).backward()
            optimizer.step()
        wait_for(device)
        if number:  # the first one chooses kernels
            rates.append(rows * steps / (time.perf_counter() - started))
    return rates
