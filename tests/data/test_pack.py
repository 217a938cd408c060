"""Packed ImageNet: the same images, names and fingerprint as the folders; damage is found and named."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from acr_ray.data import batches, open_images
from acr_ray.settings import UserError
from jobs import pack
from tests.fakes.images import write_imagenet


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_imagenet(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def packed(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("pack")
    pack.main(["--data.root", str(folders), "--out", str(out)])
    return out


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_pack_is_the_folders_bit_for_bit(folders, packed, split):
    before, after = (open_images("imagenet", str(root), split) for root in (folders, packed))
    assert after.names == before.names and after.class_names == before.class_names
    assert np.array_equal(after.labels, before.labels) and after.fingerprint() == before.fingerprint()
    items = range(len(before))
    for seeds in (None, list(items)):
        assert torch.equal(after.load(items, seeds), before.load(items, seeds))
    some = [3, 0, 2]
    assert after.subset(some).fingerprint() == before.subset(some).fingerprint()
    assert torch.equal(after.subset(some).load([1], None), before.load([0], None))


def test_loader_processes_read_the_pack_too(packed):
    images = open_images("imagenet", str(packed), "train")
    plan = [(np.arange(4), np.arange(4)), (np.arange(4, 8), np.arange(4))]
    for (a, _), (b, _) in zip(batches(images, plan, 2), batches(images, plan, 0), strict=True):
        assert torch.equal(a, b)
    images.load([0], None)
    assert len(pickle.dumps(images)) < 100_000, "the map itself does not travel"


@pytest.mark.slow
def test_several_processes_pack_the_same_bytes(folders, tmp_path):
    for name, processes in (("one", "1"), ("two", "2")):
        argv = ["--data.root", str(folders), "--out", str(tmp_path / name), "--side", "224", "--split", "train"]
        pack.main([*argv, "--processes", processes])
    assert (tmp_path / "one/train/images.bin").read_bytes() == (tmp_path / "two/train/images.bin").read_bytes()


def test_smaller_images_are_another_data_set(folders, tmp_path):
    folders, out = shutil.copytree(folders, tmp_path / "folders"), tmp_path / "small"
    large = next((folders / "train").rglob("*.JPEG"))
    with Image.open(large) as image:
        image.resize((640, 480)).save(large, quality=90)
    pack.main(["--data.root", str(folders), "--out", str(out), "--side", "224", "--split", "train"])
    before, after = (open_images("imagenet", str(root), "train") for root in (folders, out))
    assert after.fingerprint() != before.fingerprint() and after.names == before.names
    items = range(len(before))
    difference = (after.load(items, None) - before.load(items, None)).abs().mean()
    assert 0 < difference < 0.05
    for row in items:
        image, original = after._open(row), before._open(row)
        assert min(image.size) == min(224, min(original.size))
        assert image.width / image.height == pytest.approx(original.width / original.height, rel=0.02)


def test_a_pack_is_not_made_twice_unless_asked(packed, folders, capsys):
    before = (packed / "train/images.bin").stat().st_mtime_ns
    pack.main(["--data.root", str(folders), "--out", str(packed)])
    assert "packed before" in capsys.readouterr().out
    assert (packed / "train/images.bin").stat().st_mtime_ns == before
    pack.main(["--data.root", str(folders), "--out", str(packed), "--overwrite"])
    assert (packed / "train/images.bin").stat().st_mtime_ns > before


def test_half_a_pack_and_a_damaged_one_are_one_line(folders, tmp_path):
    for spoil in ("cut", "offsets", "about", "version", "bytes"):
        out = tmp_path / spoil
        pack.main(["--data.root", str(folders), "--out", str(out), "--split", "train"])
        folder = out / "train"
        if spoil == "cut":
            (folder / "images.bin").write_bytes((folder / "images.bin").read_bytes()[:-1])
        elif spoil == "offsets":
            (folder / "offsets.npy").write_bytes(b"x")
        elif spoil == "about":
            (folder / "pack.json").write_text("{}")
        elif spoil == "version":
            about = json.loads((folder / "pack.json").read_text()) | {"schema_version": 9}
            (folder / "pack.json").write_text(json.dumps(about))
        else:
            content = bytearray((folder / "images.bin").read_bytes())
            content[:200] = bytes(200)
            (folder / "images.bin").write_bytes(content)
        with pytest.raises(UserError, match=str(folder)):
            open_images("imagenet", str(out), "train").load([0], None)


def test_a_pack_cut_short_is_not_taken_for_one(folders, tmp_path, monkeypatch):
    """pack.json is written last: without it the folder is not a pack."""
    from acr_ray.data import pack as module

    def broken(*args, **kwargs):
        yield b"x"
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_encoded", broken)
    with pytest.raises(KeyboardInterrupt):
        pack.main(["--data.root", str(folders), "--out", str(tmp_path / "p"), "--split", "train"])
    assert not module.is_pack(tmp_path / "p", "train")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--data.root", "/no/such"], "/no/such"),
        (["--side", "100"], "--side"),
        (["--quality", "99"], "--quality"),
        (["--out", "s3://bucket/pack"], "local path"),
        (["--out", "/proc/pack"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line(folders, tmp_path, change, said):
    argv = ["--data.root", str(folders), "--out", str(tmp_path / "out"), *change]
    with pytest.raises(UserError, match=said):
        pack.main(argv)
