"""``bench gpu``: JPEG files decoded on the card, against the CPU's views and in images a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from acr_ray.data import batches, open_images
from acr_ray.data.device_decoding import DeviceDecoder
from jobs.benchmarks.figures import figure
from jobs.benchmarks.gpu_parts import Findings
from jobs.benchmarks.loader import images_per_second, write_images

LEVELS = 1.5 / 255  # mean difference from the CPU's view that decoders and resizers may make


def loader(found: Findings) -> None:
    """Views of generated photographs, and how fast they come."""
    count, workers, rounds = (8, 1, 1) if found.dry else (192, 8, 3)
    with tempfile.TemporaryDirectory() as folder:
        images = open_images("imagenet", str(write_images(Path(folder), count)), "train")
        with found.check("views decoded on the card: the CPU's but for rounding, whatever their company") as v:
            items, seeds, decoder = np.arange(8), np.arange(8) + 5, DeviceDecoder(images, found.device)
            plan = [(items, seeds), (items, None), (items[3:4], seeds[3:4])]
            views = [x.cpu() for x, _ in batches(images, plan, decoder=decoder)]
            away = [(x - images.load(*entry)).abs() for x, entry in zip(views, plan, strict=True)]
            v["grey_levels_away_on_average"] = float(max(a.mean() for a in away)) * 255
            v["farthest"] = float(max(a.max() for a in away)) * 255
            assert max(a.mean() for a in away) < LEVELS and (views[2][0] == views[0][3]).all()
        for name, device in (("CPUs", None), ("the card", found.device)):
            with found.check(f"images a second decoded on {name}, {workers} loader processes") as v:
                images_per_second(images, workers, 0, device)
                v["images_a_second"] = figure([images_per_second(images, workers, k, device) for k in range(rounds)])
