"""The options of jobs.certify."""

from __future__ import annotations

from acr_ray.settings import CertifySettings
from jobs._main import Parser, number, whole
from jobs._run import add_run_options

OPTIONS = {
    "dataset": "dataset", "root": "data.root", "class_map": "data.class_map",
    "split": "split", "max_images": "max-images", "every": "every",
    "image_list": "image-list", "n": "n", "n0": "n0", "alpha": "alpha", "radii": "radii", "sigma": "sigma",
    "seed": "seed", "block": "block", "stopping": "stopping", "tolerance": "tolerance",
    "stop_when_wrong": "stop-when-wrong", "bound": "bound", "dtype": "dtype", "compile": "compile",
}  # fmt: skip


def parser(about: str) -> Parser:
    found = Parser(prog="python -m jobs.certify", description=about)
    found.add_argument("checkpoint", metavar="CHECKPOINT", help="train folder, its checkpoint/, or runs:/RUN_ID")
    found.add_argument(
        "--actors", type=_actors, metavar="K", help="sampler actors [>= 1, or LEAST:MOST; default: all that fit]"
    )
    found.add_argument(
        "--gpus-per-actor", type=number(0), default=0, metavar="G", help="0: CPU; a fraction shares a GPU [default: 0]"
    )
    add_run_options(found)
    defaults = {name: info.default for name, info in CertifySettings.model_fields.items() if not info.is_required()}
    found.add_settings(CertifySettings, OPTIONS, defaults, flags=("stop_when_wrong", "compile"))
    return found


def _actors(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    least = whole(1, 1_000_000)(low)
    return least, whole(least, 1_000_000)(high) if high else least
