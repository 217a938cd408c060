"""What a machine says of itself. Runs on each node, in a worker of its own; knows nothing of Ray or of other nodes."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from acr_ray.settings import UserError
from acr_ray.settings.image_options import ImageOptions
from acr_ray.storage import Folder
from acr_ray.storage.node_checks import SHARED_MEMORY

PACKAGES = ("ray", "torch", "torchvision", "numpy", "scipy", "pydantic", "safetensors", "pyarrow")
DRIVER = "driver"
DECODED = 200  # images at most, evenly spaced over the split


@dataclass(frozen=True)
class Questions:
    """What nodes are asked about, beside themselves.

    Attributes:
        storage: folder for results, a path or URI; None: not asked.
        probe: name of a folder in it that the driver has made for this check.
        dataset, root, split: the images; ``dataset`` None: not asked.
        size: side of the square that images become; None: the data set's own.
    """

    storage: str | None = None
    probe: str = ""
    dataset: str | None = None
    root: str | None = None
    split: str = "train"
    size: int | None = None


def facts(questions: Questions, node: str) -> dict[str, Any]:
    """Return all that `findings` judges, as plain values.

    Args:
        node: a name of this node that may be part of a file's name.
    """
    return {
        "host": socket.gethostname(),
        "versions": versions(),
        "shared_memory": space(SHARED_MEMORY),
        "temporary": space(os.environ.get("RAY_TMPDIR") or "/tmp"),
        "gpus": gpus(),
        "storage": asked_storage(questions, node),
        "data": asked_data(questions),
    }


def clock() -> float:
    """Return seconds since 1970 by this machine's clock."""
    return time.time()


def versions() -> dict[str, str]:
    """Versions of Python, of what computes, of CUDA and NCCL, and a hash of acr_ray's own code."""
    versions_here = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            versions_here[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions_here[package] = "missing"
    return versions_here | _of_torch() | {"acr_ray code": code_hash()}


def _of_torch() -> dict[str, str]:
    try:
        import torch
    except Exception as error:  # a broken installation is an answer, too
        return {"torch": f"cannot be imported ({' '.join(str(error).split())[:120]})"}
    versions_here = {"cuda": torch.version.cuda or "none"}
    if torch.cuda.is_available():
        versions_here["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return versions_here


def code_hash() -> str:
    """Return the first digits of a SHA-256 over acr_ray's Python files: a version alone hides a node's stale copy."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def space(path: str) -> dict[str, int] | None:
    """Return the bytes of the file system at a path, ``total`` and ``free``; None if there is none."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free}


def gpus() -> list[dict[str, Any]]:
    """Name, memory (MiB) and driver of each GPU, also of those that this process was not given."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in listed.splitlines() if line.strip()]
    return [{"name": r[0], "memory": r[1], "driver": r[2]} for r in rows if len(r) == 3]


def asked_storage(questions: Questions, node: str) -> dict[str, Any] | None:
    """Return whether this node sees what the driver wrote, and can write beside it."""
    if questions.storage is None:
        return None
    try:
        folder = Folder(questions.storage, option="--storage") / questions.probe
        if not folder.is_file(DRIVER):
            return {"sees": False}
        folder.write_text(f"node-{node}", node)
    except (OSError, UserError) as error:
        return {"sees": None, "error": " ".join(str(error).split())[:200]}
    return {"sees": True}


def asked_data(questions: Questions) -> dict[str, Any] | None:
    """Return how many images this node sees, their fingerprint, and whether some of them can be decoded."""
    if questions.dataset is None:
        return None
    from acr_ray.data import open_images

    try:
        options = ImageOptions(size=questions.size)
        images = open_images(questions.dataset, questions.root, questions.split, options=options)
        # Decoded, not only listed: a file that was cut short on its way looks whole until then.
        some = np.unique(np.linspace(0, len(images) - 1, DECODED).astype(int))
        for item in some:
            images.pixels([item], None)
        facts = {"images": len(images), "fingerprint": images.fingerprint(), "decoded": len(some)}
        return facts | {"remarks": list(images.remarks)}
    except (OSError, UserError) as error:
        return {"error": " ".join(str(error).split())[:300]}
