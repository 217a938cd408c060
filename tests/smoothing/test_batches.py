"""A batch is so many images: each gets what it would get alone."""

import numpy as np
import pytest
import torch

from acr_ray.smoothing.classifier import SmoothedClassifier
from tests.smoothing.test_pixels import SHAPE, Mean

BATCH = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b", "c"]


@pytest.fixture
def smoothed():
    return SmoothedClassifier(Mean(), 2, 0.25, shape=SHAPE)


def test_each_image_gets_what_it_would_get_alone(smoothed):
    budget = {"n0": 20, "n": 100}
    alone = [smoothed.certify(image, name=name, **budget) for image, name in zip(BATCH, NAMES, strict=True)]
    assert smoothed.certify(BATCH, names=NAMES, **budget) == alone
    assert smoothed.certify(BATCH.numpy().astype("f8"), names=NAMES, **budget) == alone
    predicted = [smoothed.predict(image, name=name, n=100) for image, name in zip(BATCH, NAMES, strict=True)]
    assert smoothed.predict(BATCH, names=NAMES, n=100) == predicted
    assert smoothed.certify(BATCH[:0], names=[], **budget) == []


@pytest.mark.parametrize(
    "images, names, said",
    [
        (BATCH, ["a", "b"], "names: 2 names for 3 images"),
        (BATCH, "abc", "names: one text for 3 images"),
        (BATCH, ["a", "b", "a"], "names: 'a' twice; images of one name share their noise"),
        (BATCH[0], NAMES, "images: (3, 4, 5); with names give a batch"),
        (BATCH.tolist(), NAMES, "images: list; with names give a batch"),
        (BATCH * torch.tensor([1, 255, 1]).reshape(3, 1, 1, 1), NAMES, "image b: has values from"),
        ((BATCH * 255).to(torch.uint8), NAMES, "image a: has values of uint8"),
        (np.transpose(BATCH.numpy(), (0, 2, 3, 1)), NAMES, "move its last axis to the front"),
    ],
)
def test_what_is_no_batch_is_one_clear_error_before_any_draw(smoothed, images, names, said):
    for call in (smoothed.certify, smoothed.predict):
        with pytest.raises(ValueError) as caught:
            call(images, names=names)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    assert smoothed.engine.evaluations == 0
