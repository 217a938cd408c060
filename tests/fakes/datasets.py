"""Every kind of data in its standard files, small, each with the same ten classes that a network can tell apart."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.fakes.images import write_cifar10, write_imagenet

COUNTS = {"train": 40, "test": 20}
OWN_MODULE = "data_of_a_user"
OWN = f"{OWN_MODULE}:images"
NAMES = [f"class {i}" for i in range(10)]


def pixels(split: str, channels: int = 3, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, side, side, channels) and int64 (N,): a bright patch says the class."""
    generator = np.random.default_rng({"train": 1, "test": 2}[split])
    labels = np.arange(COUNTS[split]) % 10
    images = generator.integers(0, 60, (len(labels), side, side, channels))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[row * side // 4 : (row + 1) * side // 4, column * side // 4 : (column + 1) * side // 4] += 180
    return images.astype(np.uint8), labels


def write_cifar100(root: Path) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for split in COUNTS:
        generator = np.random.default_rng(3)
        labels = list(range(100))
        data = generator.integers(0, 256, (100, 3072), dtype=np.uint8)
        values = {b"data": data, b"fine_labels": labels, b"coarse_labels": [0] * 100, b"filenames": [b"x.png"] * 100}
        (folder / split).write_bytes(pickle.dumps(values, protocol=2))
    return root


def write_svhn(root: Path) -> Path:
    from scipy.io import savemat

    for split in COUNTS:
        images, labels = pixels(split, side=32)
        values = {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        savemat(root / f"{split}_32x32.mat", values)
    return root


def write_mnist(folder: Path, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = pixels(split, channels=1, side=28)
        contents = {
            "images-idx3": struct.pack(">4B3I", 0, 0, 8, 3, len(images), 28, 28) + images.tobytes(),
            "labels-idx1": struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + labels.astype(np.uint8).tobytes(),
        }
        for kind, content in contents.items():
            name = f"{prefix}-{kind}-ubyte" + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(content) if packed else content)


def write_npz(root: Path) -> Path:
    for split in COUNTS:
        images, labels = pixels(split)
        np.savez_compressed(root / f"{split}.npz", images=images, labels=labels, class_names=np.array(NAMES))
    return root


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def table(encoded: list[bytes], labels: np.ndarray, names: list[str] | None) -> pa.Table:
    """As the hub's datasets library writes it."""
    image = pa.array(
        [{"bytes": b, "path": None} for b in encoded], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    found = pa.table({"image": image, "label": pa.array(labels, pa.int64())})
    if names is None:
        return found
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(root: Path) -> Path:
    """Two shards of training images, the first in two row groups; the test images are called validation."""
    for split, count, prefix in (("train", 2, "train"), ("test", 1, "validation")):
        images, labels = pixels(split)
        for shard, rows in enumerate(np.array_split(np.arange(len(labels)), count)):
            path = root / f"{prefix}-{shard:05d}-of-{count:05d}.parquet"
            pq.write_table(table([png(images[i]) for i in rows], labels[rows], NAMES), path, row_group_size=13)
    return root


OWN_SOURCE = """
import numpy as np
from tests.fakes.datasets import NAMES, pixels

class Pictures:
    classes = NAMES
    def __init__(self, split):
        self.images, self.labels = pixels(split)
    def __len__(self):
        return len(self.labels)
    def __getitem__(self, item):
        from PIL import Image
        return Image.fromarray(self.images[item]), int(self.labels[item])

def images(split):
    return Pictures(split)

def arrays(split, root):
    images, labels = pixels(split)
    return images / 300, labels
"""


def write_own(folder: Path) -> Path:
    (folder / f"{OWN_MODULE}.py").write_text(OWN_SOURCE)
    return folder


def write_all(base: Path) -> dict[str, str | None]:
    """Every kind that has a root, below ``base``; gives the roots by name of the data set."""
    roots: dict[str, Path] = {}
    for name in ("cifar10", "imagenet", "cifar100", "svhn", "mnist", "fashion_mnist", "folder", "npz", "parquet"):
        roots[name] = base / name
        roots[name].mkdir()
    write_cifar10(roots["cifar10"])
    write_imagenet(roots["imagenet"])
    write_cifar100(roots["cifar100"])
    write_svhn(roots["svhn"])
    write_mnist(roots["mnist"], packed=True)
    write_mnist(roots["fashion_mnist"] / "FashionMNIST" / "raw", packed=False)
    write_imagenet(roots["folder"])
    write_npz(roots["npz"])
    write_parquet(roots["parquet"])
    return {"digits": None, **{name: str(root) for name, root in roots.items()}}
