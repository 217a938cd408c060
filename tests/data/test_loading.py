import shutil

import numpy as np
import pytest
import torch

from acr_ray.data import batches, open_images
from acr_ray.data.sampling import view_seeds
from acr_ray.settings import UserError


def plan_of(images, size=4, rounds=2):
    generator = np.random.default_rng(0)
    for number in range(rounds * len(images) // size):
        items = generator.integers(0, len(images), size)
        yield items, None if number % 3 == 2 else view_seeds(0, number, items)


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "imagenet"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_follow_the_plan_bit_for_bit(roots, dataset, workers):
    images = open_images(dataset, roots[dataset], "train").subset([0, 3, 5, 6, 9, 11, 1])
    got = list(batches(images, plan_of(images), workers))
    wanted = list(plan_of(images))
    assert len(got) == len(wanted) >= 3
    for (x, labels), (items, seeds) in zip(got, wanted, strict=True):
        assert torch.equal(x, images.load(items, seeds))
        assert labels.dtype == torch.int64 and labels.tolist() == images.labels[items].tolist()


def test_workers_leave_the_global_random_state_alone(imagenet_root):
    images = open_images("imagenet", imagenet_root, "test")
    before = torch.get_rng_state()
    list(batches(images, plan_of(images), 1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_surfaces_as_one_line(imagenet_root, tmp_path, workers):
    root = shutil.copytree(imagenet_root, tmp_path / "imagenet")
    images = open_images("imagenet", str(root), "test")
    (root / images.names[5]).write_bytes(b"broken")
    found = batches(images, [(np.array([i]), None) for i in range(9)], workers)
    with pytest.raises(UserError, match=images.names[5]) as caught:
        for _ in range(9):
            next(found)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
def test_pinned_batches_hold_the_same(roots, dataset, workers):
    images = open_images(dataset, roots[dataset], "train")
    plain, pinned = (list(batches(images, plan_of(images), workers, pin)) for pin in (False, True))
    for (x, labels), (x_pinned, labels_pinned) in zip(plain, pinned, strict=True):
        assert torch.equal(x, x_pinned) and torch.equal(labels, labels_pinned)
        assert x_pinned.is_pinned() == labels_pinned.is_pinned() == torch.cuda.is_available()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_plan_is_drawn_on_as_needed_and_may_be_left(imagenet_root, workers):
    images = open_images("imagenet", imagenet_root, "test")
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield np.array([0]), None

    found = batches(images, endless(), workers)
    next(found)
    found.close()
    assert len(drawn) <= 4
