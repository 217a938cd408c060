"""The attacks against slow references, what they keep, and that they leave the network alone."""

import numpy as np
import pytest
import torch
from torch import nn

from acr_ray.training.ascent import resized, unit, within
from acr_ray.training.methods import Batch
from acr_ray.training.methods.input_attacks import ddn, pgd
from acr_ray.training.methods.noise_attacks import worst_noise
from acr_ray.training.passes import PassCounter
from tests.training.methods import slow
from tests.training.methods.making import CLASSES, batch, network


def attacks(given):
    target = torch.rand(len(given.images), CLASSES, generator=torch.Generator().manual_seed(3)).double().softmax(1)
    return {
        "pgd": lambda: pgd(given, 3, 0.5, 0.8)[-1],
        "ddn": lambda: ddn(given, 3, 0.1, 0.8),
        "noise": lambda: worst_noise(given, target, 3, 0.8),
    }


def lengths(values):
    return values.flatten(1).norm(dim=1)


@pytest.mark.parametrize("radius", [None, 0.6])
@pytest.mark.parametrize("m", [1, 3])
def test_pgd_equals_the_reference_after_every_step(m, radius):
    model = network(norm=True)
    given = batch(model, m=m)
    found = pgd(given, 4, 0.4, radius)
    model.eval()
    for i, (x, y, draws) in enumerate(slow.each(given)):
        for ours, theirs in zip(found, slow.pgd(model, x, y, draws, 4, 0.4, radius), strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("radius, gamma, steps", [(0.5, 0.05, 2), (0.7, 0.3, 6), (2.0, 0.2, 10)])
@pytest.mark.parametrize("m", [1, 3])
def test_ddn_equals_the_reference(m, radius, gamma, steps):
    model = network(norm=True)
    given = batch(model, m=m)
    found = ddn(given, steps, gamma, radius)
    model.eval()
    for i, (x, y, draws) in enumerate(slow.each(given)):
        expected = slow.ddn(model, x, y, draws, steps, gamma, radius)
        torch.testing.assert_close(found[i], expected, rtol=1e-9, atol=1e-11)


def test_ddn_finds_small_perturbations_and_none_for_images_already_wrong():
    model = network()
    given = batch(model, images=20, right=0.5)
    found = lengths(ddn(given, 20, 0.1, 3.0) - given.images)
    assert (found[10:] == 0).all(), "wrong from the start: the smallest perturbation is none"
    assert (found[:10] > 0).any() and (found <= 3.0 + 1e-12).all()


@pytest.mark.parametrize("m", [1, 3])
def test_worst_noise_equals_the_reference(m):
    model = network(norm=True)
    given = batch(model, m=m)
    target = torch.eye(CLASSES, dtype=torch.float64)[given.labels] * 0.7 + 0.3 / CLASSES
    found = worst_noise(given, target, 3, 0.7)
    model.eval()
    for i, (x, _, draws) in enumerate(slow.each(given)):
        for j, delta in enumerate(draws):
            expected = slow.worst_noise(model, x, target[i], delta, 3, 0.7)
            torch.testing.assert_close(found[i * m + j], expected, rtol=1e-9, atol=1e-11)


def test_worst_noise_keeps_the_mean_and_about_the_spread():
    """Scaled by the root mean square about zero, as in the released code: the standard deviation moves a little."""
    model = network()
    given = batch(model, images=30, right=1.0)
    target = torch.eye(CLASSES, dtype=torch.float64)[given.labels]
    found = worst_noise(given, target, 4, 1.0)
    now, then = found.flatten(1), given.noise.flatten(1)
    torch.testing.assert_close(now.mean(1), then.mean(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(now.std(1), then.std(1), rtol=0.05, atol=0)


def test_worst_noise_is_scaled_about_zero():
    """One step of known direction: the noise of a network that adds up its pixels goes down in all of them alike."""

    class Sum(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)

    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    noise = torch.tensor([[[[0.4, 0.1], [0.2, 0.3]]]], dtype=torch.float64)
    given = Batch(images, torch.tensor([0]), noise, 1, 0.5, 0.0, Sum(), np.array([1]), 2)
    found = worst_noise(given, torch.tensor([[1.0, 0.0]], dtype=torch.float64), 1, 0.1)
    moved = noise - 0.1 / 2  # a step of 0.2, projected to the ball of radius 0.1: 0.05 in each of four pixels
    size, now = noise.square().mean().sqrt(), moved.square().mean().sqrt()
    torch.testing.assert_close(found, noise.mean() + (moved - moved.mean()) / now * size, rtol=1e-6, atol=1e-9)


def test_worst_noise_makes_things_worse():
    model = network()
    given = batch(model, images=30, right=1.0)
    target = torch.eye(CLASSES, dtype=torch.float64)[given.labels]
    found = worst_noise(given, target, 4, 1.0)
    losses = [
        nn.functional.cross_entropy(model(given.repeated(given.images) + noise), given.repeated(given.labels))
        for noise in (given.noise, found)
    ]
    assert losses[1] > losses[0]


@pytest.mark.parametrize("radius", [0.1, 0.8, 3.0])
def test_input_attacks_stay_in_the_ball_and_in_the_unit_cube(radius):
    given = batch(network())
    for found in (*pgd(given, 4, radius / 2, radius), ddn(given, 4, 0.1, radius)):
        assert (lengths(found - given.images) <= radius * (1 + 1e-12)).all()
        assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", ["pgd", "ddn", "noise"])
def test_the_network_is_left_as_it_was(name):
    model = network(norm=True)
    given = batch(model)
    model.train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(given.images).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    noise, images = given.noise.clone(), given.images.clone()
    found = attacks(given)[name]()
    assert model.training and model[0].training and not model[1].training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(given.noise, noise) and torch.equal(given.images, images)
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["pgd", "ddn", "noise"])
def test_parameter_gradients_are_not_even_computed(name):
    model = network()
    given = batch(model)
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: pytest.fail("a parameter's gradient was computed"))
    attacks(given)[name]()


@pytest.mark.parametrize("name", ["pgd", "ddn", "noise"])
def test_costs_what_it_says(name):
    model = network()
    given = batch(model, images=5, m=3)
    counter = PassCounter(model)
    attacks(given)[name]()
    assert counter.take() == (3 * 15, 3 * 15)


@pytest.mark.parametrize("name", ["pgd", "ddn"])
def test_works_without_gradients_around_it_and_where_they_are_zero(name):
    class Flat(nn.Module):
        def forward(self, x):
            return torch.stack([0 * x.sum((1, 2, 3)) + c for c in range(CLASSES)], 1)

    given = batch(Flat())
    with torch.no_grad():
        found = attacks(given)[name]()
    assert torch.equal(found, given.images)


def test_rows_of_zeros_stay_zeros():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)[:, :, None, None]
    assert unit(rows).flatten(1).tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]
    assert within(rows, 2.5).flatten(1).tolist() == [[0, 0], [1.5, 2.0]] and torch.equal(within(rows, 9.0), rows)
    assert resized(rows, torch.full((2, 1, 1, 1), 10.0).double()).flatten(1).tolist() == [[0, 0], [6, 8]]
