"""Data sets behind a URI: fetched once to a machine, whole or not at all."""

import multiprocessing
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import fs

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
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "parts", "views"]
    assert len([path for path in (folder / "parts").iterdir() if path.is_dir()]) == 1
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
    assert not list((folder / "parts").iterdir()), "nothing half fetched is left"
    assert len(open_images("imagenet", root, "train")) == 12


@pytest.mark.parametrize("root", ["file:///no/such/place", "nonsense://x/y"])
def test_a_uri_that_leads_nowhere_is_one_line(root):
    with pytest.raises(UserError, match="--data.root"):
        open_images("imagenet", root, "train")


class Listed:
    """A store whose listing says what a test wants; every file holds the same bytes."""

    def __init__(self, names, kind=fs.FileType.File):
        self.names, self.kind = names, kind

    def get_file_info(self, asked):
        if isinstance(asked, str):
            there = asked in ("bucket/train", "bucket/val")
            return fs.FileInfo(asked, type=fs.FileType.Directory if there else fs.FileType.NotFound)
        return [fs.FileInfo(name, type=self.kind, size=3, mtime=1.0) for name in self.names]

    def open_input_stream(self, path):
        return pa.BufferReader(b"bad")


@pytest.mark.parametrize("kind", [fs.FileType.File, fs.FileType.Directory])
@pytest.mark.parametrize(
    "key",
    [
        "bucket/train/../../../../.bashrc",
        "bucket/train/a/../../../x",
        "bucket/train//etc/cron.d/x",
        "/etc/passwd",
        "bucket/other/x",
        "bucket/trainer/x",
        "bucket/train/C:/x",
        "bucket/train/..\\x",
        "bucket/train/a\0b",
        "bucket/train/..",
    ],
)
def test_a_store_cannot_write_outside_the_cache(key, kind, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(fetching, "_store", lambda uri: (Listed([key], kind), "bucket"))
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents}
    with pytest.raises(UserError, match="--data.root s3://bucket: the store"):
        open_images("imagenet", "s3://bucket", "train")
    assert {path for path in tmp_path.rglob("*") if cache not in path.parents} - {cache} == before - {cache}
    assert not [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]


def test_what_has_changed_in_the_store_is_seen(tmp_path, cache, monkeypatch):
    root = write_imagenet(tmp_path / "i")
    first, copied, copy = open_images("imagenet", root.as_uri(), "test"), [], fetching._copy
    monkeypatch.setattr(fetching, "_copy", lambda *a: (copied.append(a[1].rpartition("/")[2]), copy(*a)))
    assert open_images("imagenet", root.as_uri(), "test").names == first.names and copied == []
    extra = next((root / "val").rglob("*.JPEG"))
    shutil.copy(extra, extra.with_name("uploaded_later.JPEG"))
    second = open_images("imagenet", root.as_uri(), "test")
    assert len(second) == len(first) + 1 and copied == ["uploaded_later.JPEG"], "only what is new is fetched"
    extra.unlink()
    assert len(open_images("imagenet", root.as_uri(), "test")) == len(first)
    assert first.load(range(len(first)), None).shape[0] == len(first), "who reads the older version goes on"


def test_labels_repaired_in_the_store_are_seen(tmp_path):
    root = write_cifar10(tmp_path / "c", seed=0)
    before = open_images("cifar10", root.as_uri(), "test").labels
    write_cifar10(tmp_path / "c", seed=1)
    after = open_images("cifar10", root.as_uri(), "test").labels
    assert np.array_equal(after, open_images("cifar10", str(root), "test").labels)
    assert not np.array_equal(after, before)


def test_a_file_that_changes_while_it_is_fetched_is_not_taken(tmp_path, cache, monkeypatch):
    root, copy = write_imagenet(tmp_path / "i").as_uri(), fetching._copy

    def growing(remote, source, target):
        copy(remote, source, target)
        with target.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(fetching, "_copy", growing)
    with pytest.raises(UserError, match="has changed while it was fetched"):
        open_images("imagenet", root, "train")
    assert not list((next(cache.iterdir()) / "parts").iterdir())
