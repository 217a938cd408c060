"""Generated data sets in the standard layouts, small enough for tests, with classes that a network can tell apart."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

SYNSETS = ("n01440764", "n01443537", "n01484850", "n02084071", "n03028079", "n04067472")


def write_cifar10(root: Path, per_batch: int = 20, test: int = 20, seed: int = 0) -> Path:
    """``root/cifar-10-batches-py`` with five training batches and a test batch; gives `root` back.

    The files are byte for byte of the kind that Python 2 wrote for the real data set.
    """
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    prototypes = _prototypes(generator, 10, 32)
    for name, count in [*((f"data_batch_{i}", per_batch) for i in range(1, 6)), ("test_batch", test)]:
        labels = generator.permutation(np.arange(count) % 10)
        noise = generator.normal(0, 12, (count, 3, 32, 32))
        data = np.clip(prototypes[labels] + noise, 0, 255).astype(np.uint8).reshape(count, 3072)
        (folder / name).write_bytes(python2_pickle(data, labels.tolist(), name))
    return root


def write_imagenet(root: Path, classes: int = 3, train: int = 4, val: int = 3, seed: int = 0) -> Path:
    """``root/train`` and ``root/val`` with class folders of real JPEGs, 40 to 300 pixels a side; gives `root` back.

    The first image of each validation class is grey, the second CMYK, as some of the real ones are.
    """
    generator = np.random.default_rng(seed)
    prototypes = _prototypes(generator, classes, 16)
    for label, synset in enumerate(SYNSETS[:classes]):
        for top, count in (("train", train), ("val", val)):
            folder = root / top / synset
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = np.clip(prototypes[label] + generator.normal(0, 12, (3, 16, 16)), 0, 255).astype(np.uint8)
                size = tuple(int(side) for side in generator.integers(40, 301, 2))
                image = Image.fromarray(pixels.transpose(1, 2, 0)).resize(size, Image.Resampling.BICUBIC)
                mode = {0: "L", 1: "CMYK"}.get(i, "RGB") if top == "val" else "RGB"
                number = label * count + i
                name = f"{synset}_{number}.JPEG" if top == "train" else f"ILSVRC2012_val_{number:08d}.JPEG"
                image.convert(mode).save(folder / name, format="JPEG", quality=90)
    return root


def python2_pickle(data: np.ndarray, labels: list[int], label_of_batch: str) -> bytes:
    """A batch as Python 2's cPickle wrote it with protocol 2: byte strings, numpy.core, no encodings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def whole(value: int) -> bytes:
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)

    def items(values: list[bytes]) -> bytes:
        return b"](" + b"".join(values) + b"e"

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + whole(0) + b"\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + whole(0) + whole(1) + b"\x87R"
    dtype += b"(" + whole(3) + text(b"|") + b"NNN" + whole(-1) + whole(-1) + whole(0) + b"tb"
    shape = whole(data.shape[0]) + whole(data.shape[1]) + b"\x86"
    array += b"(" + whole(1) + shape + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    names = items([text(f"picture_{i:06d}.png".encode()) for i in range(len(labels))])
    return (
        b"\x80\x02}("
        + (text(b"batch_label") + text(label_of_batch.encode()))
        + (text(b"labels") + items([whole(label) for label in labels]))
        + (text(b"data") + array)
        + (text(b"filenames") + names)
        + b"u."
    )


def _prototypes(generator: np.random.Generator, classes: int, side: int) -> np.ndarray:
    """One smooth pattern a class: float64 (classes, 3, side, side), 0 to 255."""
    coarse = generator.uniform(20, 235, (classes, 3, 4, 4))
    return coarse.repeat(side // 4, axis=2).repeat(side // 4, axis=3)
