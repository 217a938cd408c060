"""Classifiers whose robust radius is known: two-class certificates exceed it at most with probability alpha."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from acr_ray.smoothing.bounds import radius
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.two_class import runner_up, two_class_p_lower

ALPHA, N, RUNS = 0.05, 400, 20_000

# Classes of a number by the interval that it falls in: edges, and the class between each two.
PIECEWISE = {
    "two half-lines": ((0.0,), (0, 1)),
    "a linear classifier of three classes": ((-0.7, 0.9), (0, 1, 2)),
    "a narrow rival in the middle of the class": ((-1.5, -0.2, 0.1, 1.4), (1, 0, 2, 0, 3)),
    "comb": ((-2.0, -1.2, -0.5, 0.2, 0.8, 1.5), (0, 1, 0, 2, 0, 3, 0)),
}


def probabilities(x: np.ndarray, name: str, sigma: float) -> np.ndarray:
    """The class probabilities under noise at each x, (len(x), 4)."""
    edges, classes = PIECEWISE[name]
    steps = np.array([-np.inf, *edges, np.inf])
    parts = np.diff(special.ndtr((steps[None] - x[:, None]) / sigma), axis=1)
    found = np.zeros((len(x), 4))
    for k, label in enumerate(classes):
        found[:, label] += parts[:, k]
    return found


def true_radius(x: float, label: int, name: str, sigma: float) -> float:
    """How far the smoothed classifier answers ``label`` to both sides of x, on a grid; negative: not even there."""
    reach = np.linspace(0, 6, 6001)
    wrong = [(probabilities(x + side * reach, name, sigma).argmax(axis=1) != label).argmax() for side in (1, -1)]
    held = [r for r, k in zip((reach[wrong[0]], reach[wrong[1]]), wrong, strict=True) if k]
    answers = probabilities(np.array([x]), name, sigma).argmax()
    return -1.0 if answers != label else min(held, default=np.inf)


@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("x", [-1.0, -0.3, 0.02, 0.4])
def test_the_radius_exceeds_the_truth_at_most_with_probability_alpha(name: str, x: float) -> None:
    sigma = 0.6
    p = probabilities(np.array([x]), name, sigma)[0]
    rng = np.random.default_rng(0)
    selected = rng.multinomial(20, p, RUNS).argmax(axis=1)
    counts = rng.multinomial(N, p, RUNS)
    top = counts[np.arange(RUNS), selected]
    claims = two_class_p_lower(top, runner_up(counts, selected), N, ALPHA)
    truth = np.array([true_radius(x, label, name, sigma) for label in range(4)])[selected]
    exceeds = (claims > 0) & (radius(claims, sigma) > np.maximum(truth, 0.0) + 1e-3)
    exceeds |= (claims > 0) & (truth < 0)
    assert exceeds.mean() <= ALPHA + 5 * np.sqrt(ALPHA * (1 - ALPHA) / RUNS)
    assert name == "comb" or (claims > 0).mean() > 0.03, "something is certified here"


class Linear(nn.Module):
    """Three classes by the sum of the pixels, in slabs: below 1, below 3, and above."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.flatten(1).sum(1)
        return torch.stack([1.0 - total, 0.0 * total, total - 3.0], dim=1)


def test_a_real_linear_network_is_never_certified_beyond_its_boundary_and_closer_than_before() -> None:
    smoothed = SmoothedClassifier(Linear(), 3, 0.4, seed=1, block=500)
    image = torch.full((1, 2, 2), 0.5)  # the sum is 2: distance 1 / sqrt(4) to both boundaries
    one = smoothed.certify(image, n=5000, alpha=0.001, name="a")
    two = smoothed.certify(image, n=5000, alpha=0.001, name="a", certificate="two-class")
    assert (one.kind, two.kind) == ("one-class", "two-class") and one.predicted == two.predicted == 1
    assert one.radius < two.radius < 0.5
    with pytest.raises(ValueError, match="kind: both"):
        smoothed.certify(image, n=500, name="a", certificate="both")
