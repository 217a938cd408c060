"""CIFAR-10 in its standard folder, ``cifar-10-batches-py``."""

from __future__ import annotations

from acr_ray.data.cifar import CifarLayout, open_cifar
from acr_ray.data.image_set import MemorySet
from acr_ray.settings.image_options import ImageOptions

FOLDER = "cifar-10-batches-py"
FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LAYOUT = CifarLayout(
    dataset="cifar10",
    title="CIFAR-10",
    folder=FOLDER,
    files=FILES,
    said="data_batch_1 … data_batch_5 and test_batch",
    labels="labels",
    classes=CLASSES,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)


def open_cifar10(root: str, split: str, options: ImageOptions = ImageOptions()) -> MemorySet:  # noqa: B008 - frozen
    """The 50,000 training or 10,000 test images, shape (3, 32, 32), in the order of the files.

    Args:
        root: the folder ``cifar-10-batches-py`` itself, or the one that holds it.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: folder or file missing, damaged, or a pickle that holds anything but the images.
    """
    return open_cifar(LAYOUT, root, split, options)
