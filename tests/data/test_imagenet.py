import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from acr_ray.data import open_images
from acr_ray.data.views import random_resized_crop
from acr_ray.settings import UserError
from tests.fakes.images import SYNSETS, write_imagenet


@pytest.fixture
def own_root(imagenet_root, tmp_path):
    return shutil.copytree(imagenet_root, tmp_path / "imagenet")


def test_names_and_order_are_torchvisions(imagenet_root):
    from torchvision.datasets import ImageFolder

    for split, top in (("train", "train"), ("test", "val")):
        ours = open_images("imagenet", imagenet_root, split)
        theirs = ImageFolder(f"{imagenet_root}/{top}")
        assert [f"{imagenet_root}/{name}" for name in ours.names] == [path for path, _ in theirs.samples]
        assert ours.labels.tolist() == theirs.targets
        assert list(ours.class_names) == theirs.classes == list(SYNSETS[:3])
    assert ours.names[0] == "val/n01440764/ILSVRC2012_val_00000000.JPEG"


def test_evaluation_view_is_the_fields(imagenet_root):
    """Resize the shorter side to 256, centre crop 224, of RGB, as every published number has it."""
    images = open_images("imagenet", imagenet_root, "test")
    reference = v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor()])
    modes = set()
    for item, name in enumerate(images.names):
        with Image.open(f"{imagenet_root}/{name}") as image:
            modes.add(image.mode)
            assert torch.equal(images.load([item], None)[0], reference(image.convert("RGB")))
    assert modes == {"L", "CMYK", "RGB"}


def test_training_view_against_crop_resize_mirror(imagenet_root):
    images = open_images("imagenet", imagenet_root, "train")
    found = images.load([0] * 6, range(6))
    with Image.open(f"{imagenet_root}/{images.names[0]}") as file:
        image = file.convert("RGB")
    for seed in range(6):
        top, left, height, width, mirrored = random_resized_crop(image.height, image.width, seed)
        part = image.crop((left, top, left + width, top + height)).resize((224, 224), Image.Resampling.BILINEAR)
        if mirrored:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert torch.equal(found[seed], v1.functional.to_tensor(part))


@pytest.mark.parametrize(("height", "width"), [(300, 400), (224, 224), (40, 300), (1000, 20), (1, 1), (2, 3)])
def test_crops_lie_inside_and_have_allowed_shapes(height, width):
    crops = [random_resized_crop(height, width, seed) for seed in range(500)]
    for top, left, h, w, _ in crops:
        assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0
    assert 180 < sum(mirrored for *_, mirrored in crops) < 320


def test_crops_are_distributed_as_torchvisions():
    ours = np.array([random_resized_crop(300, 400, seed)[:4] for seed in range(3000)], dtype=float)
    blank = Image.new("RGB", (400, 300))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array(
            [v1.RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)], dtype=float
        )
    for column in range(4):
        merged = np.sort(np.concatenate([ours[:, column], theirs[:, column]]))
        gap = [np.searchsorted(np.sort(part[:, column]), merged, side="right") / 3000 for part in (ours, theirs)]
        # Kolmogorov-Smirnov: for equal distributions of 3,000 draws each, 0.05 is passed less than once in 1,000 times.
        assert np.abs(gap[0] - gap[1]).max() < 0.05


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "gone"])
def test_a_broken_image_is_named(own_root, damage):
    images = open_images("imagenet", str(own_root), "test")
    path = own_root / images.names[4]
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"<html>"}[damage])
    for seeds in (None, [1]):
        with pytest.raises(UserError, match=str(path)) as caught:
            images.load([4], seeds)
        assert "\n" not in str(caught.value)


def test_fingerprint_sees_sizes_and_names(own_root):
    before = open_images("imagenet", str(own_root), "test").fingerprint()
    first = own_root / open_images("imagenet", str(own_root), "test").names[0]
    with first.open("ab") as stream:
        stream.write(b"\0")
    resized = open_images("imagenet", str(own_root), "test").fingerprint()
    first.rename(first.with_name("A.JPEG"))
    renamed = open_images("imagenet", str(own_root), "test").fingerprint()
    assert len({before, resized, renamed}) == 3


def test_classes_must_agree(own_root):
    (own_root / "val" / "n99999999").mkdir()
    with pytest.raises(UserError, match="unknown class folder n99999999"):
        open_images("imagenet", str(own_root), "test")
    shutil.rmtree(own_root / "val" / "n99999999")
    shutil.rmtree(own_root / "val" / SYNSETS[1])
    with pytest.raises(UserError, match=f"no folder for class {SYNSETS[1]}"):
        open_images("imagenet", str(own_root), "test")


def test_missing_and_empty_folders_are_named(own_root):
    for file in (own_root / "train" / SYNSETS[2]).iterdir():
        file.unlink()
    with pytest.raises(UserError, match=f"no image in train/{SYNSETS[2]}"):
        open_images("imagenet", str(own_root), "train")
    assert len(open_images("imagenet", str(own_root), "test")) == 9  # empty class folders in train/ name the classes
    shutil.rmtree(own_root / "val")
    with pytest.raises(UserError, match="no val folder with a folder for each class"):
        open_images("imagenet", str(own_root), "test")


def test_other_files_are_passed_over(own_root):
    for name in (".DS_Store", "._ILSVRC2012_val_00000000.JPEG", "readme.txt"):
        (own_root / "val" / SYNSETS[0] / name).write_bytes(b"x")
    (own_root / "val" / ".cache").mkdir()
    assert len(open_images("imagenet", str(own_root), "test")) == 9


def test_fakes_vary_in_size(tmp_path):
    root = write_imagenet(tmp_path, classes=2)
    assert len({Image.open(path).size for path in root.rglob("*.JPEG")}) > 8
