"""The adaptive attack against a slow, one-sample-at-a-time reference of Algorithm 1."""

import pytest
import torch
from torch import nn

from acr_ray.settings.recipe import AttackSettings
from acr_ray.training.attack import attack_noise, bucket_sizes, worth_looking
from acr_ray.training.passes import PassCounter
from acr_ray.training.precision import Autocast

SHAPE = (2, 5, 5)


def small_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(150, 4)
        ).double()
        with torch.no_grad():
            model(torch.randn(64, *SHAPE, dtype=torch.float64) * 2 + 1)
    return model


def batch(rows=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, *SHAPE, generator=generator, dtype=torch.float64)
    noise = 0.5 * torch.randn(rows, *SHAPE, generator=generator, dtype=torch.float64)
    return x, noise


def half_right(model, x, noise):
    """Labels that the model gets right on about three quarters of the rows."""
    model.eval()
    labels = model(x + noise).argmax(1)
    labels[::4] = (labels[::4] + 1) % 4
    model.train()
    return labels


def reference(model, x, y, delta, steps, epsilon, norm):
    """Algorithm 1 for one draw, straight from the paper's text."""
    model.eval()
    first = delta.norm()
    delta, stepped = delta.clone(), 0
    for _ in range(steps):
        here = delta.clone().requires_grad_()
        logits = model((x + here)[None])
        if int(logits.argmax()) != int(y):
            break
        stepped += 1
        gradient = torch.autograd.grad(nn.functional.cross_entropy(logits, y[None]), here)[0]
        step = gradient / gradient.norm() if norm == "l2" else gradient.sign() / delta.numel() ** 0.5
        delta = delta + epsilon * step
        delta = delta * first / delta.norm()
    model.train()
    return delta, stepped


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("steps, epsilon", [(1, 0.25), (3, 0.25), (6, 1.0)])
def test_equals_the_reference(norm, steps, epsilon):
    model = small_model().train()
    x, noise = batch()
    labels = half_right(model, x, noise)
    settings = AttackSettings(enabled=True, steps=steps, epsilon=epsilon, norm=norm)
    found = attack_noise(model, x, labels, noise, settings)
    expected = [reference(model, *row, steps, epsilon, norm) for row in zip(x, labels, noise, strict=True)]
    torch.testing.assert_close(found.noise, torch.stack([delta for delta, _ in expected]), rtol=1e-9, atol=1e-11)
    assert found.active.tolist() == [sum(stepped > t for _, stepped in expected) for t in range(steps)]
    assert 0 < found.active[0] < len(x), "the test needs rows of both kinds"


def test_keeps_every_norm_and_stops_where_the_class_is_already_wrong():
    model = small_model().train()
    x, noise = batch()
    labels = half_right(model, x, noise)
    found = attack_noise(model, x, labels, noise, AttackSettings(enabled=True, steps=4, epsilon=0.5)).noise
    torch.testing.assert_close(found.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1), rtol=1e-12, atol=0)
    model.eval()
    wrong = model(x + noise).argmax(1) != labels
    assert wrong.any() and torch.equal(found[wrong], noise[wrong])
    assert not torch.equal(found[~wrong], noise[~wrong])


def test_makes_samples_harder():
    model = small_model().train()
    x, noise = batch(200)
    labels = half_right(model, x, noise)
    found = attack_noise(model, x, labels, noise, AttackSettings(enabled=True, steps=4, epsilon=0.5)).noise
    model.eval()
    right = [int((model(x + delta).argmax(1) == labels).sum()) for delta in (noise, found)]
    assert right[1] < 0.7 * right[0]


def test_leaves_the_model_as_it_was():
    model = small_model().train()
    model[1].eval()
    x, noise = batch()
    labels = half_right(model, x, noise)
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(x).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    given = noise.clone()
    attack_noise(model, x, labels, noise, AttackSettings(enabled=True, steps=3, epsilon=0.25))
    assert torch.equal(noise, given)
    assert model.training and not model[1].training and model[0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_passes_only_rows_that_are_still_correct():
    model = small_model().train()
    x, noise = batch()
    labels = half_right(model, x, noise)
    counter = PassCounter(model)
    active = attack_noise(model, x, labels, noise, AttackSettings(enabled=True, steps=3, epsilon=0.25)).active.tolist()
    expected = len(x) + active[0] + active[1]
    assert counter.take() == (expected, expected)


def test_nothing_correct_and_zero_gradients():
    model = small_model().train()
    x, noise = batch(6)
    labels = (half_right(model, x, noise) + 2) % 4
    model.eval()
    labels = (model(x + noise).argmax(1) + 1) % 4
    found = attack_noise(model, x, labels, noise, AttackSettings(enabled=True))
    assert torch.equal(found.noise, noise) and not found.active.any()

    class Flat(nn.Module):
        def forward(self, x):
            return torch.stack([0 * x.sum((1, 2, 3)) + 1, 0 * x.sum((1, 2, 3))], 1)

    still = attack_noise(Flat(), x, torch.zeros(6, dtype=torch.int64), noise, AttackSettings(enabled=True))
    torch.testing.assert_close(still.noise, noise, rtol=1e-12, atol=0)
    assert torch.isfinite(still.noise).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("buckets, look", [(1, ()), (3, ()), (8, ()), (0, (True,) * 5), (4, (True, False, True))])
def test_padding_and_looking_first_change_nothing(norm, buckets, look):
    model = small_model().train()
    x, noise = batch()
    labels = half_right(model, x, noise)
    settings = AttackSettings(enabled=True, steps=5, epsilon=0.4, norm=norm)
    plain = attack_noise(model, x, labels, noise, settings)
    found = attack_noise(model, x, labels, noise, settings, buckets=buckets, look_first=look)
    torch.testing.assert_close(found.noise, plain.noise, rtol=1e-12, atol=0)
    assert torch.equal(found.active, plain.active)


def test_buckets_are_the_only_sizes_that_the_network_sees():
    model = small_model().train()
    x, noise = batch()
    labels = half_right(model, x, noise)
    seen = []
    model.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    attack_noise(model, x, labels, noise, AttackSettings(enabled=True, steps=5, epsilon=0.4), buckets=4)
    assert bucket_sizes(40, 4) == [10, 20, 30, 40] and bucket_sizes(3, 8) == [1, 2, 3] and bucket_sizes(9, 0) == []
    assert set(seen) <= {10, 20, 30, 40} and len(set(seen)) > 1


def test_looking_first_is_for_steps_where_most_rows_are_wrong():
    assert worth_looking([0.9, 0.8, 0.7]) == (False, False, False)
    assert worth_looking([0.3, 0.28, 0.1]) == (True, False, True)
    assert worth_looking([0.0, 0.0]) == (True, False) and worth_looking([]) == ()


def test_gradients_of_weights_are_neither_kept_nor_computed():
    """Seen from autograd: no layer's graph asks for them, and frozen layers keep no inputs for them."""
    model = small_model().train()
    x, noise = batch()
    labels = half_right(model, x, noise)
    asked = []

    class Watching(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(weight)
            return x * weight

        @staticmethod
        def backward(ctx, gradient):
            asked.append(ctx.needs_input_grad)
            return gradient * ctx.saved_tensors[0], None

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.weight = model, nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x):
            return self.inner(Watching.apply(x, self.weight))

    scaled = Scaled()
    attack_noise(scaled, x, labels, noise, AttackSettings(enabled=True))
    assert asked and set(asked) == {(True, False)}
    assert all(p.requires_grad and p.grad is None for p in scaled.parameters())


@pytest.mark.parametrize("dtype, scale", [(torch.bfloat16, 1.0), (torch.float16, 1024.0)])
def test_under_autocast_the_attack_is_about_the_same(dtype, scale):
    model = small_model().float().train()
    x, noise = (part.float() for part in batch(200))
    labels = half_right(model, x, noise)
    settings = AttackSettings(enabled=True, steps=3, epsilon=0.5)
    exact = attack_noise(model, x, labels, noise, settings)
    found = attack_noise(Autocast(model, dtype, "cpu"), x, labels, noise, settings, scale=scale)
    alike = nn.functional.cosine_similarity(found.noise.flatten(1), exact.noise.flatten(1))
    assert alike.median() > 0.99 and (alike > 0.9).float().mean() > 0.95
    assert (found.active - exact.active).abs().max() <= 6
    torch.testing.assert_close(found.noise.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1))
