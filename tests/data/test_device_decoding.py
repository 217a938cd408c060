"""JPEGs decoded where the network is; the other decoder's CPU side stands in for a card's."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acr_ray.cli.drivers.training import train
from acr_ray.cli.session import RunOptions
from acr_ray.data import batches, open_images
from acr_ray.data.device_decoding import DeviceDecoder, decoding_problem, is_plain_jpeg
from acr_ray.data.pack import write_pack
from acr_ray.settings import UserError, load_recipe
from acr_ray.settings.image_options import ImageOptions
from acr_ray.training import loop
from acr_ray.training.group import Group
from acr_ray.training.workers import CheckpointPolicy, Workers


@pytest.fixture(scope="module")
def packed(imagenet_root, tmp_path_factory):
    root = tmp_path_factory.mktemp("pack")
    write_pack(open_images("imagenet", imagenet_root, "train"), root / "train")
    return str(root)


def decoded(images, plan, workers=0):
    return list(batches(images, plan, workers, decoder=DeviceDecoder(images, "cpu")))


@pytest.mark.parametrize("augmentation", ["resized_crop", "flip", "none"])
@pytest.mark.parametrize("where", ["folders", "packed"])
def test_views_are_the_cpus_but_for_rounding(imagenet_root, packed, where, augmentation):
    """The same boxes and mirrors of the same seeds; decoders and resizers round otherwise by a few grey levels."""
    root = imagenet_root if where == "folders" else packed
    images = open_images("imagenet", root, "train", options=ImageOptions(augmentation=augmentation))
    plan = [(np.array([5, 0, 7]), np.array([3, 1, 2])), (np.array([2]), None), (np.array([5]), np.array([3]))]
    found = decoded(images, plan)
    for (x, labels), (items, seeds) in zip(found, plan, strict=True):
        expected = images.load(items, seeds)
        assert x.shape == expected.shape and x.dtype == torch.float32
        assert labels.tolist() == images.labels[items].tolist()
        away = (x - expected).abs()
        assert away.mean() < 1.5 / 255 and (away > 12 / 255).float().mean() < 0.01
    assert torch.equal(found[2][0][0], found[0][0][0]), "a view depends on its own seed, not on its company"
    for (x, _), (again, _) in zip(found, decoded(images, plan, workers=2), strict=True):
        assert torch.equal(x, again)


def test_files_that_decoders_read_otherwise_are_decoded_as_ever(imagenet_root, tmp_path):
    """Grey and CMYK images, turned ones, those with a profile, and what is no JPEG."""
    root = Path(shutil.copytree(imagenet_root, tmp_path / "imagenet"))
    images = open_images("imagenet", str(root), "test")
    files = [root / name for name in images.names]
    with Image.open(files[2]) as file:
        picture = file.convert("RGB")
    assert [is_plain_jpeg(file.read_bytes()) for file in files[:3]] == [False, False, True]
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(files[3], "JPEG", exif=turned, quality=95)
    picture.save(files[4], "JPEG", icc_profile=b"x" * 200, quality=95)
    picture.save(files[5], "PNG")
    odd = [0, 1, 3, 4, 5]
    assert not any(is_plain_jpeg(files[i].read_bytes()) for i in odd)
    images = open_images("imagenet", str(root), "test")
    (found,) = decoded(images, [(np.array([*odd, 2]), None)])
    away = (found[0] - images.load([*odd, 2], None)).abs()
    assert away.mean() < 1.5 / 255
    sent = DeviceDecoder(images, "cpu").read(np.array([*odd, 2]))
    assert [len(shape) for shape in sent.shapes] == [3] * 5 + [1] and sent.content.ndim == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_named(imagenet_root, tmp_path, workers):
    root = Path(shutil.copytree(imagenet_root, tmp_path / "imagenet"))
    images = open_images("imagenet", str(root), "train")
    content = (root / images.names[4]).read_bytes()
    for broken in (
        content[: len(content) // 2],  # cut off
        content[: content.index(b"\xff\xda")] + content[-2:],  # no pixels: the headers are as they should be
    ):
        (root / images.names[4]).write_bytes(broken)
        with pytest.raises(UserError, match=images.names[4]) as refused:
            decoded(images, [(np.array([3, 4, 5]), None)], workers)
        assert "\n" not in str(refused.value)
    (root / images.names[4]).unlink()
    with pytest.raises(UserError, match=f"{images.names[4]}: no such image file"):
        decoded(images, [(np.array([3, 4, 5]), None)], workers)


def test_what_cannot_be_decoded_on_a_gpu_is_one_line(roots, imagenet_root):
    assert decoding_problem(open_images("imagenet", imagenet_root, "train")) is None
    digits = open_images("digits", None, "train")
    assert decoding_problem(digits) == (
        "data.decode = gpu: digits holds no image files in folders or a pack; leave it out"
    )
    with pytest.raises(UserError, match="holds no image files"):
        DeviceDecoder(digits, "cpu")
    cropped = open_images("imagenet", imagenet_root, "train", options=ImageOptions(augmentation="crop_flip"))
    assert "not with data.augmentation = crop_flip; allowed: none, flip, resized_crop" in decoding_problem(cropped)


def recipe_of(root):
    changes = {"data.root": str(root), "data.size": 32, "data.resize": "40", "model.architecture": "resnet18"}
    changes |= {"training.epochs": 1, "training.milestones": (), "training.batch_size": 6, "data.decode": "gpu"}
    changes |= {"data.loader_workers": 0}
    return load_recipe("imagenet-gaussian-0.5").change(changes)


def test_without_a_gpu_the_command_says_so_before_anything_starts(imagenet_root, tmp_path):
    options = RunOptions(str(tmp_path / "out"), tracking=False)
    with pytest.raises(UserError, match=r"data.decode = gpu: the workers have no GPU; give --gpus-per-worker 1"):
        train(recipe_of(imagenet_root), options, Workers(1), 0, CheckpointPolicy())
    assert not (tmp_path / "out").exists()


def test_a_run_trains_on_what_the_decoder_gives(imagenet_root, monkeypatch):
    recipe = recipe_of(imagenet_root)
    assert recipe.identity()["data.decode"] == "gpu"
    assert "data.decode" not in recipe.change({"data.decode": "cpu"}).identity()
    images = open_images("imagenet", imagenet_root, "train", options=recipe.data.options)
    with pytest.raises(UserError, match="the workers have no GPU"):
        loop.Trainer(recipe, images, 0, Group())
    monkeypatch.setattr(loop, "check_decoding", lambda *given: None)
    losses = []
    for decode in ("gpu", "cpu"):
        trainer = loop.Trainer(recipe.change({"data.decode": decode}), images, 0, Group())
        trainer.run()
        losses.append(trainer.progress.history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]
