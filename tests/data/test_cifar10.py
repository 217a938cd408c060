import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from acr_ray.data import open_images
from acr_ray.data.chance import uniforms
from acr_ray.data.plain_pickle import STAND_INS
from acr_ray.data.views import crop_and_flip
from acr_ray.settings import UserError
from tests.fakes.images import write_cifar10


@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_what_torchvision_reads(cifar10_root, split, monkeypatch):
    # torchvision unpickles without limits: fine for files we just wrote; its checksums are of the real ones.
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)
    theirs = torchvision.datasets.CIFAR10(cifar10_root, train=split == "train")
    ours = open_images("cifar10", cifar10_root, split)
    assert ours.labels.tolist() == theirs.targets
    expected = torch.from_numpy(theirs.data).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(ours.load(range(len(ours)), None), expected)


def test_root_may_be_the_folder_itself(cifar10_root):
    inside = open_images("cifar10", f"{cifar10_root}/cifar-10-batches-py", "test")
    assert inside.fingerprint() == open_images("cifar10", cifar10_root, "test").fingerprint()


def test_names_are_frozen(cifar10_root):
    assert open_images("cifar10", cifar10_root, "test").names[7] == "cifar10/test/00007"
    assert open_images("cifar10", cifar10_root, "train").names[99] == "cifar10/train/00099"


def test_view_against_a_crop_at_a_time():
    """Slow reference: one image at a time, padded, cut and mirrored."""
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    seeds = np.arange(1000, 1200)
    found = crop_and_flip(images, seeds)
    corners, mirrored = set(), 0
    for image, seed, view in zip(images, seeds, found, strict=True):
        down, across, flip = uniforms([seed], 3)[0]
        top, left = int(9 * down), int(9 * across)
        padded = np.zeros((3, 40, 40), dtype=np.uint8)
        padded[:, 4:36, 4:36] = image
        expected = padded[:, top : top + 32, left : left + 32]
        if flip < 0.5:
            expected = expected[:, :, ::-1]
            mirrored += 1
        assert np.array_equal(view, expected)
        corners |= {(0, top), (1, left)}
    assert corners == {(axis, place) for axis in (0, 1) for place in range(9)}
    assert 60 < mirrored < 140


def test_fingerprint_sees_one_pixel(tmp_path):
    root = write_cifar10(tmp_path, per_batch=2, test=2)
    before = open_images("cifar10", str(root), "test").fingerprint()
    path = root / "cifar-10-batches-py" / "test_batch"
    content = bytearray(path.read_bytes())
    content[content.index(b"\x89T") + 500] ^= 1
    path.write_bytes(content)
    assert open_images("cifar10", str(root), "test").fingerprint() != before


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_batches_written_by_python_3(tmp_path, protocol):
    root = write_cifar10(tmp_path, per_batch=2, test=2)
    data = np.arange(4 * 3072, dtype=np.uint8).reshape(4, 3072)
    path = root / "cifar-10-batches-py" / "test_batch"
    for key in (str, str.encode):
        batch = {key("data"): data, key("labels"): [3, 1, 4, 1], key("filenames"): [b"a.png"] * 4}
        path.write_bytes(pickle.dumps(batch, protocol=protocol))
        images = open_images("cifar10", str(root), "test")
        assert images.labels.tolist() == [3, 1, 4, 1]
        assert np.array_equal(images.pixels(range(4), None).numpy().reshape(4, 3072), data)


class Exploit:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def _write(folder: Path, content: bytes) -> Path:
    path = folder / "test_batch"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    root = write_cifar10(tmp_path, per_batch=2, test=2)
    loot = tmp_path / "loot"
    for call, argument in [(open, (str(loot), "w")), (Path.touch, (loot,)), (eval, (f"open({str(loot)!r}, 'w')",))]:
        content = pickle.dumps({"data": Exploit(call, *argument), "labels": [1]}, protocol=protocol)
        path = _write(root / "cifar-10-batches-py", content)
        with pytest.raises(UserError, match=f"{path}: the pickle asks for .*; refused, not run"):
            open_images("cifar10", str(root), "test")
        assert not loot.exists()


def test_stand_ins_cannot_be_used_to_reach_others(tmp_path):
    root = write_cifar10(tmp_path, per_batch=2, test=2)
    for dotted in (
        b"cnumpy\ndtype.__init__.__globals__\n.",
        b"c_codecs\nopen\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.",
    ):
        _write(root / "cifar-10-batches-py", dotted)
        with pytest.raises(UserError, match="refused, not run"):
            open_images("cifar10", str(root), "test")


@pytest.mark.parametrize("name", STAND_INS, ids=".".join)
def test_stand_ins_cannot_be_changed(tmp_path, name):
    """BUILD sets attributes on whatever lies on the pickle's stack."""
    root = write_cifar10(tmp_path, per_batch=2, test=2)
    before = dict(vars(STAND_INS[name]))
    load = "c{}\n{}\n".format(*name).encode()
    for state in (b"}(U\x07__doc__U\x03badu", b"N}(U\x07__doc__U\x03badu\x86"):
        _write(root / "cifar-10-batches-py", b"\x80\x02" + load + state + b"b.")
        with pytest.raises(UserError, match="test_batch"):
            open_images("cifar10", str(root), "test")
    assert dict(vars(STAND_INS[name])) == before


GOOD = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 9]}


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"not a pickle",
        pickle.dumps(GOOD, protocol=2)[:-300],
        pickle.dumps([1, 2]),
        pickle.dumps({"labels": [1]}),
        pickle.dumps(GOOD | {"labels": [0, 10]}),
        pickle.dumps(GOOD | {"labels": [0, -1]}),
        pickle.dumps(GOOD | {"labels": [0]}),
        pickle.dumps(GOOD | {"labels": [0.5, 1.0]}),
        pickle.dumps(GOOD | {"labels": "ab"}),
        pickle.dumps(GOOD | {"data": np.zeros((2, 3071), np.uint8)}),
        pickle.dumps(GOOD | {"data": np.zeros((2, 3072), np.int64)}),
        pickle.dumps(GOOD | {"data": np.zeros((2, 3072), np.float32)}),
        pickle.dumps(GOOD | {"data": np.array([{}, {}])}),
        pickle.dumps(GOOD | {"data": None}),
    ],
    ids=range(15),
)
def test_damaged_batches_are_named(tmp_path, batch):
    root = write_cifar10(tmp_path, per_batch=2, test=2)
    path = _write(root / "cifar-10-batches-py", batch)
    with pytest.raises(UserError, match=str(path)) as caught:
        open_images("cifar10", str(root), "test")
    assert "\n" not in str(caught.value)


def test_a_missing_batch_is_named(tmp_path):
    root = write_cifar10(tmp_path, per_batch=2, test=2)
    (root / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(UserError, match="no data_batch_3 in"):
        open_images("cifar10", str(root), "train")
    assert len(open_images("cifar10", str(root), "test")) == 2
