"""The 1,797 real handwritten 8x8 digits inside scikit-learn: nothing to download."""

from __future__ import annotations

import numpy as np

from acr_ray.data.arrays import in_memory
from acr_ray.data.image_set import MemorySet
from acr_ray.settings.image_options import ImageOptions

TEST_SIZE = 500
# Of the 1,297 training digits in [0, 1]: one grey channel.
MEAN, STD = (0.3054,), (0.3759,)


def split_items(labels: np.ndarray, test_size: int = TEST_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(train, test): sorted indices, the classes in proportion (largest remainder), the same on every machine."""
    classes, counts = np.unique(labels, return_counts=True)
    quota = counts * test_size / len(labels)
    taken = np.floor(quota).astype(int)
    for c in np.argsort(taken - quota, kind="stable")[: test_size - taken.sum()]:
        taken[c] += 1
    # Raw words of PCG64 are promised to stay; shuffles of numpy's Generator and of scikit-learn are not.
    keys = np.random.PCG64(0).random_raw(len(labels))
    test = []
    for c, count in zip(classes, taken, strict=True):
        members = np.flatnonzero(labels == c)
        test.append(members[np.argsort(keys[members], kind="stable")[:count]])
    chosen = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def open_digits(root: str | None, split: str, options: ImageOptions) -> MemorySet:
    """1,297 training or 500 test digits, shape (1, 8, 8); pixels 0 to 16, scaled to [0, 1].

    The training view is the evaluation view: a mirrored digit is no digit, and a shift by one of 8 pixels cuts
    strokes off. The noise is all the augmentation that these images bear.
    """
    from sklearn.datasets import load_digits  # takes a second to import; only this data set needs it

    raw = load_digits()
    train, test = split_items(raw.target)
    rows = train if split == "train" else test
    return in_memory(
        raw.images[rows, None].astype(np.uint8),
        options,
        dataset="digits",
        split=split,
        labels=raw.target[rows],
        names=[f"digits/{row:04d}" for row in rows],
        class_names=[str(name) for name in raw.target_names],
        mean=MEAN,
        std=STD,
        peak=16,
    )
