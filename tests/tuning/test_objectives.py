"""Objectives, fronts and validation against slow references."""

import numpy as np
import pytest
import torch
from torch import nn

from acr_ray.data import open_images
from acr_ray.settings import UserError
from acr_ray.smoothing.bounds import lower_bound, max_radius, radius
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.training.group import Group
from acr_ray.tuning.objectives import (
    ValidationCounts,
    best_objectives,
    failed,
    logged,
    measure,
    pareto_front,
    parse_objectives,
)
from acr_ray.tuning.validation import ValidationSettings, enough, expected_radius, held_out, validate

SIGMA, N, ALPHA = 0.5, 2000, 0.001


def test_names_and_directions():
    asked = parse_objectives("acr, hard_share,certified_accuracy@0.5,p_a_quantile@0.25", SIGMA, N, ALPHA)
    assert [o.name for o in asked] == ["acr", "hard_share", "certified_accuracy@0.5", "p_a_quantile@0.25"]
    assert [o.mode for o in asked] == ["max", "min", "max", "max"]
    every = logged(asked, SIGMA, N, ALPHA)
    assert every[: len(asked)] == asked and len(set(every)) == len(every)
    assert {o.kind for o in logged((), SIGMA, N, ALPHA)} == {o.kind for o in asked}
    assert failed(asked) == {"acr": 0, "hard_share": 1, "certified_accuracy@0.5": 0, "p_a_quantile@0.25": 0}


def test_best_is_certified_accuracy_at_each_radius():
    asked = parse_objectives("best@0.25, 0.5,1,acr", SIGMA, N, ALPHA)
    assert [o.name for o in asked] == [*(f"certified_accuracy@{r}" for r in ("0.25", "0.5", "1")), "acr"]
    assert best_objectives("best@0.25, 0.5,1,acr") == asked[:3]
    assert best_objectives("acr,certified_accuracy@0.5") == ()
    assert best_objectives("acr,best@0.5") == parse_objectives("certified_accuracy@0.5", SIGMA, N, ALPHA)


@pytest.mark.parametrize(
    "text",
    [
        "best",
        "best@",
        "best@x",
        "best@0.5,1.4",
        "best@0.5,0.5",
        "best@0.5,nan",
        "best@0.5,acr,0.25",
        "0.5",
        "acr,0.5",
        "best@0.5,certified_accuracy@0.5",
        "",
        "arc",
        "acr@1",
        "certified_accuracy",
        "certified_accuracy@x",
        "certified_accuracy@-1",
        "certified_accuracy@1.4",
        "certified_accuracy@nan",
        "p_a_quantile@1.1",
        "acr,acr",
        "acr,",
    ],
)
def test_unknown_metrics_are_named(text):
    with pytest.raises(UserError, match="--metric"):
        parse_objectives(text, SIGMA, N, ALPHA)


def test_measure_equals_a_slow_reference():
    rng = np.random.default_rng(0)
    right = rng.integers(0, N + 1, 60)
    counts = ValidationCounts(right, np.full(60, N), expected_radius(right, np.full(60, N), N, ALPHA, SIGMA), 0)
    found = measure(counts, logged((), SIGMA, N, ALPHA))
    radii = [float(radius(lower_bound(k, N, ALPHA), SIGMA)) for k in right]
    assert found["acr"] == pytest.approx(sum(radii) / 60)
    assert found["certified_accuracy@0.5"] == sum(r >= 0.5 for r in radii) / 60
    assert found["certified_accuracy@0"] == sum(r > 0 for r in radii) / 60
    assert found["hard_share"] == sum(k / N < 0.5 for k in right) / 60
    assert found["p_a_quantile@0.5"] == pytest.approx(float(np.median(right / N)))


def test_expected_radius_is_exact_at_n_and_close_to_what_n_draws_give():
    assert expected_radius(np.array([N]), np.array([N]), N, ALPHA, SIGMA)[0] == max_radius(SIGMA, N, ALPHA)
    rng = np.random.default_rng(1)
    for p in (0.3, 0.6, 0.8, 0.95, 0.99):
        few = rng.binomial(200, p, 4000)
        guessed = expected_radius(few, np.full(4000, 200), N, ALPHA, SIGMA).mean()
        truth = radius(lower_bound(rng.binomial(N, p, 4000), N, ALPHA), SIGMA).mean()
        assert guessed == pytest.approx(truth, abs=0.05 * SIGMA), p


def test_an_image_stops_once_its_radius_is_known_or_it_counts_nothing():
    assert enough(np.array([5, 48, 120, 4800]), np.array([50, 50, 150, 5000]), 0.15).tolist() == [
        True,
        False,
        True,
        True,
    ]
    assert not enough(np.array([25]), np.array([50]), 0.1)[0]


def test_pareto_front_equals_a_slow_reference():
    rng = np.random.default_rng(2)
    values = np.round(rng.random((80, 2)), 1)
    values[3] = np.nan
    signs = (1, -1)
    good = values * np.array(signs)

    def beaten(i):
        return any(all(good[j] >= good[i]) and any(good[j] > good[i]) for j in range(80) if not np.isnan(good[j]).any())

    expected = [not np.isnan(values[i]).any() and not beaten(i) for i in range(80)]
    assert pareto_front(values, signs).tolist() == expected
    assert pareto_front(values[:0], signs).tolist() == []


def test_held_out_images_are_in_proportion_and_never_trained_on():
    images = open_images("digits", None, "train")
    training, validation = held_out(images, ValidationSettings(), 0)
    assert set(training.names).isdisjoint(validation.names) and len(training) + len(validation) == len(images)
    share = np.bincount(validation.labels) / np.bincount(images.labels)
    assert np.all(np.abs(share - 0.2) < 0.01)
    assert set(validation.names).isdisjoint(open_images("digits", None, "test").names)
    again, other = held_out(images, ValidationSettings(), 0)[1], held_out(images, ValidationSettings(), 1)[1]
    assert again.names == validation.names != other.names
    assert len(held_out(images, ValidationSettings(most=50), 0)[1]) == 50


class Bright(nn.Module):
    """Says 0 where the noisy image is brighter than most: its p_A for 0 spreads over all of [0, 1]."""

    def forward(self, x):
        brightness = x.flatten(1).mean(1, keepdim=True) - 0.28
        return torch.cat([brightness, -brightness], dim=1)


def test_validation_equals_a_slow_reference_and_any_sharing_out():
    images = open_images("digits", None, "train").subset(range(60))
    images.labels = np.zeros_like(images.labels)
    engine = SamplingEngine(Bright(), 2, SIGMA)
    fixed = validate(engine, images, ValidationSettings(stopping="fixed", n=300), 7, Group())
    assert fixed.draws.tolist() == [300] * 60 and fixed.noise_draws == 300 * 60
    settings = ValidationSettings(n=600, tolerance=0.12)
    alone = validate(engine, images, settings, 7, Group())
    assert alone.noise_draws == alone.draws.sum() < 600 * 60
    assert set(alone.draws) <= set(settings.looks) and len(set(alone.draws)) > 2
    # An image has stopped at the first look where it has enough, and not before.
    for right, draws in zip(alone.right, alone.draws, strict=True):
        assert draws == settings.n or enough(np.array([right]), np.array([draws]), 0.12)[0]

    class Third(Group):
        def __init__(self, rank):
            self.rank, self.world = rank, 3

        def sum(self, values):
            return np.maximum(values, 1)  # of images that are others' some draws must be there

    for rank in range(3):
        part = validate(engine, images, settings, 7, Third(rank))
        assert part.right[rank::3].tolist() == np.maximum(alone.right[rank::3], 1).tolist()
        assert part.draws[rank::3].tolist() == alone.draws[rank::3].tolist()
