"""What comes in from outside is an image in [0, 1] or refused: another range would be certified as something else."""

import numpy as np
import pytest
import torch
from torch import nn

from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.pixels import checked_image

SHAPE = (3, 4, 5)
IMAGE = torch.linspace(0, 1, 60).reshape(SHAPE)


class Mean(nn.Module):
    """Class 1 where the mean exceeds 0.4."""

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([0.4 - mean, mean - 0.4], 1)


@pytest.fixture
def smoothed():
    return SmoothedClassifier(Mean(), 2, 0.25, shape=SHAPE)


def asked(smoothed, image, **options):
    return [
        smoothed.certify(image, **{"n0": 20, "n": 100} | options),
        smoothed.predict(image, **{"n": 100} | {k: v for k, v in options.items() if k != "n0"}),
        smoothed.p_a(image, 1, n=options.get("n", 100)),
    ]


@pytest.mark.parametrize("right", [IMAGE, IMAGE.numpy(), IMAGE.double(), IMAGE.numpy().astype("f8")])
def test_images_in_the_unit_range_are_all_the_same_image(smoothed, right):
    assert asked(smoothed, right) == asked(smoothed, IMAGE)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ((IMAGE * 255).to(torch.uint8), "values of uint8; scale them to [0, 1]; of 8-bit images: image / 255"),
        ((IMAGE * 255).numpy().astype("u1"), "values of uint8"),
        (IMAGE * 255, "values from 0 to 255, must lie in [0, 1]; of 8-bit images: image / 255"),
        (IMAGE * 2 - 1, "values from -1 to 1, must lie in [0, 1]; scale -1 to 1 by (image + 1) / 2"),
        ((IMAGE - 0.45) / 0.25, "leave the normalisation out: it is the model's first layer"),
        (IMAGE[None], "has shape (1, 3, 4, 5); give one image (C, H, W); for a batch give names"),
        (IMAGE[0], "has shape (4, 5); give one image"),
        (IMAGE.permute(1, 2, 0), "the model takes (C, H, W) = (3, 4, 5); move its last axis to the front"),
        (IMAGE[:1], "has shape (1, 4, 5), the model takes"),
        (IMAGE[:0], "has shape (0, 4, 5)"),
        (IMAGE * float("nan"), "holds NaN or infinite values"),
        (IMAGE / 0, "holds NaN or infinite values"),
        (IMAGE.tolist(), "a list; give a tensor or an array"),
        (np.array("x"), "an array of <U1"),
        ("image.png", "a str; give a tensor"),
    ],
)
def test_all_else_is_one_clear_error(smoothed, wrong, said):
    for call in (smoothed.certify, smoothed.predict, lambda image: smoothed.p_a(image, 1)):
        with pytest.raises(ValueError) as caught:
            call(wrong)
        assert str(caught.value).startswith("image: ") and said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert smoothed.engine.evaluations == 0  # nothing was drawn


def test_what_rounding_leaves_outside_is_brought_back():
    assert checked_image(torch.tensor([[[-1e-6, 1 + 1e-6]]])).tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"n": 0}, "n: 0; must be a whole number >= 1"),
        ({"n": 1.5}, "n: 1.5;"),
        ({"n0": 0}, "n0: 0;"),
        ({"n0": -3}, "n0: -3;"),
        ({"n": True}, "n: True;"),
        ({"alpha": 0}, "alpha: 0; must be a number in (0, 1)"),
        ({"alpha": 1}, "alpha: 1;"),
        ({"alpha": float("nan")}, "alpha: nan;"),
    ],
)
def test_budgets_out_of_range(smoothed, options, said):
    with pytest.raises(ValueError) as caught:
        smoothed.certify(IMAGE, **options)
    assert said in str(caught.value) and smoothed.engine.evaluations == 0


@pytest.mark.parametrize("sigma", [0, -0.5, float("nan"), float("inf"), None, "0.5", True])
def test_sigma_is_a_number_above_zero(sigma):
    with pytest.raises(ValueError, match="^sigma: "):
        SmoothedClassifier(Mean(), 2, sigma)


@pytest.mark.parametrize("options", [{"seed": -1}, {"block": 0}, {"seed": "x"}])
def test_seed_and_block(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        SmoothedClassifier(Mean(), 2, 0.5, **options)


def test_a_label_is_one_of_the_classes(smoothed):
    with pytest.raises(ValueError, match="label: 2; the model has classes 0 to 1"):
        smoothed.p_a(IMAGE, 2)
