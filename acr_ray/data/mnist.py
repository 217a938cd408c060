"""MNIST and Fashion-MNIST in their standard idx files, packed or not."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from acr_ray.data.arrays import in_memory, labels_of
from acr_ray.data.fetching import local_root
from acr_ray.data.image_set import MemorySet
from acr_ray.settings import UserError
from acr_ray.settings.documents import read_file
from acr_ray.settings.image_options import ImageOptions

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PREFIXES = {"train": "train", "test": "t10k"}
FOLDERS = {"mnist": ("", "MNIST/raw", "raw"), "fashion_mnist": ("", "FashionMNIST/raw", "raw")}
MOST_BYTES = 2**28  # unpacked; the real ones have 47 MB


def open_mnist(root: str, split: str, options: ImageOptions) -> MemorySet:
    """The 60,000 training or 10,000 test digits, shape (1, 28, 28), in the order of the files.

    Args:
        root: folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-…``, each also as ``.gz``; or
            one that holds it as torchvision does, ``MNIST/raw``.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: a file is missing or damaged.
    """
    return _open("mnist", root, split, options, DIGITS, 0.1307, 0.3081)


def open_fashion_mnist(root: str, split: str, options: ImageOptions) -> MemorySet:
    """Likewise Fashion-MNIST's clothes, whose files have the same names; or below ``FashionMNIST/raw``."""
    return _open("fashion_mnist", root, split, options, CLOTHES, 0.2860, 0.3530)


def _open(
    dataset: str, root: str, split: str, options: ImageOptions, classes: tuple[str, ...], mean: float, std: float
) -> MemorySet:
    here = Path(local_root(root)).expanduser()
    images_at, labels_at = (_find(here, dataset, root, split, kind) for kind in ("images-idx3", "labels-idx1"))
    images, labels = _read(images_at, 3), _read(labels_at, 1)
    return in_memory(
        images[:, None],
        options,
        dataset=dataset,
        split=split,
        labels=labels_of(labels, len(images), classes, str(labels_at)),
        names=[f"{dataset}/{split}/{i:05d}" for i in range(len(images))],
        class_names=classes,
        mean=(mean,),
        std=(std,),
    )


def _find(here: Path, dataset: str, root: str, split: str, kind: str) -> Path:
    name = f"{PREFIXES[split]}-{kind}-ubyte"
    for folder in FOLDERS[dataset]:
        for file in (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"):
            if (here / folder / file).is_file():
                return here / folder / file
    raise UserError(f"--data.root {root}: no {name} or {name}.gz, there or in {FOLDERS[dataset][1]}")


def _read(path: Path, axes: int) -> np.ndarray:
    """uint8 array of an idx file with so many axes. Its length is compared with what it says."""
    try:
        content = read_file(path, MOST_BYTES)
        if content[:2] == b"\x1f\x8b":
            content = _unpacked(content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    start = 4 + 4 * axes
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4")) if len(content) >= start else ()
    if content[:4] != bytes((0, 0, 8, axes)) or np.prod(shape, dtype=object) != len(content) - start:
        raise UserError(f"{path}: not an idx file of bytes with {axes} axes, or damaged ({len(content):,} bytes)")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _unpacked(content: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    found = unpacker.decompress(content, MOST_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"unpacks to more than {MOST_BYTES:,} bytes")
    if not unpacker.eof:
        raise ValueError("the packed file is torn")
    return found
