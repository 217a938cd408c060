"""Data sets behind a URI: fetched once to a machine, whole or not at all."""

import multiprocessing

import numpy as np
import pytest
import torch

from acr_ray.data import fetching, open_images
from acr_ray.settings import UserError
from jobs import pack
from tests.fakes.images import write_cifar10, write_imagenet


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(fetching.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_fetched_data_set_is_the_one_behind_the_uri(tmp_path):
    cifar, imagenet = write_cifar10(tmp_path / "c"), write_imagenet(tmp_path / "i")
    pack.main(["--data.root", str(imagenet), "--out", str(tmp_path / "p")])
    for dataset, root in (("cifar10", cifar), ("imagenet", imagenet), ("imagenet", tmp_path / "p")):
        for split in ("test", "train"):
            here, there = (open_images(dataset, place, split) for place in (str(root), root.as_uri()))
            assert there.fingerprint() == here.fingerprint() and there.names == here.names
            assert torch.equal(there.load([1, 0], [3, 4]), here.load([1, 0], [3, 4]))
    straight = open_images("cifar10", (cifar / "cifar-10-batches-py").as_uri(), "test")
    assert np.array_equal(straight.labels, open_images("cifar10", str(cifar), "test").labels)


@pytest.mark.slow
def test_it_is_fetched_once_and_by_one_process(tmp_path, cache):
    root = write_imagenet(tmp_path / "i").as_uri()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=open_images, args=("imagenet", root, "train")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    (folder,) = cache.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "train"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.JPEG")}
    open_images("imagenet", root, "train")
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.JPEG")}


def test_a_copy_cut_short_is_not_taken_for_the_data(tmp_path, cache, monkeypatch):
    root, copy, seen = write_imagenet(tmp_path / "i").as_uri(), fetching._copy, []

    def failing(remote, source, target):
        seen.append(source)
        if len(seen) == 5:
            raise OSError(28, "No space left on device")
        copy(remote, source, target)

    monkeypatch.setattr(fetching, "_copy", failing)
    with pytest.raises(UserError, match="No space left"):
        open_images("imagenet", root, "train")
    (folder,) = cache.iterdir()
    assert [path.name for path in folder.iterdir()] == [".lock"], "nothing half fetched is left"
    assert len(open_images("imagenet", root, "train")) == 12


@pytest.mark.parametrize("root", ["file:///no/such/place", "nonsense://x/y"])
def test_a_uri_that_leads_nowhere_is_one_line(root):
    with pytest.raises(UserError, match="--data.root"):
        open_images("imagenet", root, "train")
