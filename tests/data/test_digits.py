import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from acr_ray.data import open_images
from acr_ray.data.digits import split_items


def test_split_is_frozen():
    train, test = (open_images("digits", None, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1297, 500)
    assert sorted(train.names + test.names) == [f"digits/{i:04d}" for i in range(1797)]
    digest = hashlib.sha256("\n".join(test.names).encode()).hexdigest()
    assert digest == "b5cb9415d501b3bf74e9079984d036aca3551cbb50e5f1b7630b00d0e0c7dc78"


def test_split_is_stratified():
    labels = load_digits().target
    _, test = split_items(labels)
    exact = np.bincount(labels) * 500 / 1797
    assert np.abs(np.bincount(labels[test]) - exact).max() < 1


def test_images_are_scikit_learns():
    raw = load_digits()
    images = open_images("digits", None, "test")
    x = images.load(range(len(images)), None).numpy()
    for place, name in enumerate(images.names):
        row = int(name.removeprefix("digits/"))
        assert np.array_equal(x[place, 0], (raw.images[row] / 16).astype(np.float32))
        assert images.labels[place] == raw.target[row]


def test_normalisation_is_that_of_the_training_digits():
    images = open_images("digits", None, "train")
    x = images.load(range(len(images)), None)
    assert images.mean[0] == pytest.approx(x.mean().item(), abs=1e-4)
    assert images.std[0] == pytest.approx(x.std().item(), abs=1e-4)
