"""CIFAR-100 in its standard folder, ``cifar-100-python``, with its 100 fine labels."""

from __future__ import annotations

from acr_ray.data.cifar import CifarLayout, open_cifar
from acr_ray.data.image_set import MemorySet
from acr_ray.settings.image_options import ImageOptions

CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
LAYOUT = CifarLayout(
    dataset="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    files={"train": ("train",), "test": ("test",)},
    said="train and test",
    labels="fine_labels",
    classes=CLASSES,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def open_cifar100(root: str, split: str, options: ImageOptions = ImageOptions()) -> MemorySet:  # noqa: B008 - frozen
    """The 50,000 training or 10,000 test images, shape (3, 32, 32), in the order of the file.

    Args:
        root: the folder ``cifar-100-python`` itself, or the one that holds it.
        split: ``train`` or ``test``.
        options: the user's.

    Raises:
        UserError: folder or file missing, damaged, or a pickle that holds anything but the images.
    """
    return open_cifar(LAYOUT, root, split, options)
