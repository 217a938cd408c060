import os
import shutil

import numpy as np
import pytest
import torch

from acr_ray.data import batches, loading, open_images
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


class Handles:
    """Images whose pixels tell how many handles of a pretended GPU the process that reads them has."""

    in_memory, peak, labels = False, 1, np.zeros(3, dtype=np.int64)

    def __init__(self, device):
        self._device = device

    def pixels(self, items, view_seeds):
        handles = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if n.isdigit() and held(n)]
        return torch.full((len(items), 1, 1, 1), float(handles.count(self._device)))


def held(number):
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_loader_processes_keep_no_handle_of_a_gpu(tmp_path, monkeypatch):
    """The driver would keep a killed training's memory for as long as they live."""
    monkeypatch.setattr(loading, "DEVICES", str(tmp_path / "nvidia"))
    device = tmp_path / "nvidia0"
    with device.open("w") as one, device.open("r") as other:
        plan = [(np.arange(3), None)]
        (here,), (there,) = (list(batches(Handles(str(device)), plan, workers)) for workers in (0, 1))
        assert here[0].tolist() == [[[[2.0]]]] * 3 and there[0].tolist() == [[[[0.0]]]] * 3
        assert one.writable() and other.readable(), "they are ours still"
