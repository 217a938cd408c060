"""The look before the first draw: what is wrong is named with what mends it, and nothing of the run changes."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from acr_ray.certification.input_checks import IMAGES, check_inputs, like_chance, percent
from acr_ray.cli.commands import certify
from acr_ray.cli.session import RunOptions
from acr_ray.data import open_images
from acr_ray.data.arrays import labelled
from acr_ray.models import Normalize
from acr_ray.settings.image_options import ImageOptions
from tests.fakes.models import write_digits_checkpoint

ADVICE = "try another model"


def stripes(count=80, classes=4, scale=1.0, order=None):
    """Images (N, 3, 8, 8) in which a bright column says the class."""
    generator = np.random.default_rng(1)
    labels = np.arange(count) % classes
    images = generator.uniform(0, 0.4, (count, 3, 8, 2 * classes)).astype("f4")
    for image, label in zip(images, labels, strict=True):
        image[:, :, 2 * label : 2 * label + 2] += 0.5
    labels = labels if order is None else np.array(order)[labels]
    return labelled(
        images * np.float32(scale), labels, ImageOptions(), dataset="a:b", split="test", where="x", class_names=None
    )


class Columns(nn.Module):
    """Right on `stripes`, if its inputs are in [0, 1]: beyond ``limit`` it answers nothing but class 0."""

    def __init__(self, low=-0.5, limit=1.5):
        super().__init__()
        self.low, self.limit = low, limit

    def forward(self, x):
        inside = (x.amin((1, 2, 3)) >= self.low) & (x.amax((1, 2, 3)) <= self.limit)
        logits = x.mean((1, 2)).unflatten(1, (-1, 2)).sum(2)
        first = torch.zeros_like(logits)
        first[:, 0] = 1
        return torch.where(inside[:, None], logits, first)


def model(network, mean=0.0, std=1.0):
    from collections import OrderedDict

    return nn.Sequential(OrderedDict(normalize=Normalize([mean] * 3, [std] * 3), network=network)).eval()


def seen(network, images, sigma=0.05, classes=4):
    return check_inputs(network, images, sigma, classes, ADVICE)


def test_a_good_classifier_is_told_without_a_warning():
    found = seen(model(Columns()), stripes())
    assert (found.images, found.clean, found.noisy, found.chance, found.warnings) == (IMAGES, 1.0, 1.0, 0.25, ())
    (line,) = found.lines()
    assert "right on 100 % clean, 100 % under noise of sigma 0.05 (chance: 25 %)" in line
    assert "no normalization before the network" in line
    assert found == seen(model(Columns()), stripes())  # the same images and noise each time


class Signed(Columns):
    """Right on inputs in [-1, 1] only."""

    def forward(self, x):
        right = super().forward(x)
        return torch.where((x.amin((1, 2, 3)) < -0.5)[:, None], right, torch.eye(4)[0].expand_as(right))


@pytest.mark.parametrize(
    "network, mean, std, named",
    [
        (Columns(), 0.5, 0.25, "with normalization none it is right on 100 %"),
        (Signed(-2, 2), 0.0, 1.0, "with normalization 0.5,0.5,0.5/0.5,0.5,0.5 it is right on 100 %"),
        (Columns(-9, 999), 0.5, 0.25, None),  # it doesn't care
    ],
)
def test_another_normalization_that_would_be_right_is_named(network, mean, std, named):
    found = seen(model(network, mean, std), stripes())
    if named is None:
        assert found.clean == 1 and found.warnings == ()
        return
    (warning,) = found.warnings
    assert warning.startswith(f"this classifier is right on {percent(found.clean)} of 64 clean images (chance: 25 %)")
    assert "it answers class 0 to all" in warning and found.clean < 0.4
    assert "is it the right normalisation or label order?" in warning and named in warning and ADVICE in warning


def test_labels_in_another_order_are_named():
    (warning,) = seen(model(Columns()), stripes(order=[2, 3, 0, 1])).warnings
    assert "right on 0 % of 64" in warning and "with its classes in another order it is right on 100 %" in warning


def test_labels_that_begin_at_one_are_named():
    images = stripes(classes=3)
    images.labels = images.labels + 1

    class Three(Columns):
        def forward(self, x):
            return torch.cat([super().forward(x), torch.full((len(x), 1), -9.0)], 1)

    (warning,) = seen(model(Three()), images).warnings
    assert "100 % of its answers are one less than the label" in warning


def test_a_classifier_that_noise_throws_is_named():
    (warning,) = seen(model(Columns(-0.2, 1.2)), stripes(), sigma=2.0).warnings
    assert "right on 100 % of 64 clean images, but on 2" in warning and "under noise of sigma 2" in warning
    assert "a smaller sigma" in warning


def test_pixels_divided_twice_and_a_single_class_are_named():
    dark = stripes(scale=1 / 255)
    assert any("divided by 255 once more" in text for text in seen(model(Columns()), dark).warnings)
    images = stripes()
    one = images.subset(np.flatnonzero(images.labels == 2))
    assert any("all 20 images have the label 2" in text for text in seen(model(Columns()), one).warnings)


def test_few_images_of_few_classes_raise_no_false_alarm():
    assert not like_chance(1.0, 2, 0.1) and not like_chance(0.0, 1, 0.5)  # one image of two classes says nothing
    assert like_chance(0.0, 64, 0.1) and like_chance(9 / 64, 64, 0.1) and not like_chance(16 / 64, 64, 0.1)
    assert [percent(x) for x in (0, 0.001, 0.09, 1)] == ["0 %", "0.1 %", "9 %", "100 %"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_digits_checkpoint(tmp_path_factory.mktemp("model"), sharper=3.0))


def counts(folder):
    import pyarrow.parquet as pq

    return pq.read_table(folder / "certificates.parquet")["counts"].to_pylist()


def test_a_run_prints_and_keeps_what_was_seen_and_draws_the_same(checkpoint, tmp_path, capsys):
    settings = {"n": 60, "n0": 20, "max_images": 24}
    run = {"settings": settings, "on_ray": False}
    looked = certify.run(checkpoint, RunOptions(str(tmp_path / "a"), tracking=False), **run)
    told = capsys.readouterr().out
    assert "checked 24 images: pixels 0 to 1, 10 classes; right on" in told
    assert looked.summary["checks"]["images"] == 24 and looked.summary["checks"]["draws"] == 4
    for text in looked.summary["checks"]["warnings"]:
        assert f"warning: {text}" in told
    unseen = certify.run(checkpoint, RunOptions(str(tmp_path / "b"), tracking=False), checks=False, **run)
    assert "checked" not in capsys.readouterr().out and unseen.summary["checks"] is None
    assert counts(tmp_path / "a") == counts(tmp_path / "b")
    assert looked.summary["evaluations"] == unseen.summary["evaluations"] == 24 * 80


def test_a_run_that_goes_on_is_not_looked_at_again_but_its_summary_knows(checkpoint, tmp_path, capsys):
    out, run = tmp_path / "a", {"settings": {"n": 60, "n0": 20, "max_images": 24}, "on_ray": False}
    certify.run(checkpoint, RunOptions(str(out), tracking=False), **run)
    before = json.loads((out / "summary.json").read_text())
    (out / "summary.json").unlink()  # as if killed before its last step
    capsys.readouterr()
    again = certify.run(checkpoint, RunOptions(str(out), tracking=False), **run)
    assert "checked" not in capsys.readouterr().out
    assert again.summary["checks"] == before["checks"] and again.summary["evaluations_this_time"] == 0


def test_it_is_quick_on_digits(checkpoint):
    from time import perf_counter

    from acr_ray.models import load_checkpoint

    network, _ = load_checkpoint(checkpoint)
    images = open_images("digits", None, "test")
    check_inputs(network, images, 0.25, 10, ADVICE)
    started = perf_counter()
    check_inputs(network, images, 0.25, 10, ADVICE)
    assert perf_counter() - started < 1.0
