"""Preparing a network for many forward passes: the same function, but for rounding."""

import pytest
import torch
from torch import nn

from acr_ray.models import build_model
from acr_ray.smoothing.arithmetic import folded, has_batch_norm, prepare
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.plan import Phase


def lived_in(model):
    """A model whose running statistics, scales and shifts are not those of a fresh one."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.2, 3, generator=generator)
            module.weight.data.normal_(1, 0.3, generator=generator)
            module.bias.data.normal_(generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("digits_resnet", (1, 8, 8)), ("cifar_resnet20", (3, 32, 32)), ("resnet18", (3, 64, 64))],
)
def test_folding_is_the_same_function(architecture, shape):
    mean = (0.4,) * shape[0]
    model = lived_in(build_model(architecture, 10, shape, mean, mean, 0)).double()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(5, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = model(x)
    ready = prepare(model)
    assert has_batch_norm(model) and not has_batch_norm(ready)
    assert torch.allclose(ready(x), expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_no_batch_norm_is_folded_that_sees_something_else_than_one_convolution():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.other = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.BatchNorm2d(1)

        def forward(self, x):
            a = self.conv(x)
            return (a + self.bn(a) + self.other(x * 2)).flatten(1)

    model = lived_in(Shared())
    x = torch.randn(3, 1, 2, 2)
    assert torch.allclose(folded(model)(x), model(x)) and has_batch_norm(folded(model))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, x):
            return self.conv(self.bn(self.conv(x))).flatten(1)

    model = lived_in(Twice())
    expected = model(x)
    assert torch.allclose(folded(model)(x), expected)


def test_what_cannot_be_traced_stays_as_it_is():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            x = self.bn(self.conv(x))
            return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))

    model = lived_in(Branching())
    assert folded(model) is model

    class Drawing(Branching):
        def forward(self, x):
            return self.bn(self.conv(x)).mean((2, 3)) + torch.randn(2)

    assert folded(lived_in(Drawing())).__class__ is Drawing
    hooked = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    hooked[0].register_forward_hook(lambda module, args, output: output + 1)
    assert folded(hooked) is hooked


def test_what_is_certified_does_not_change_with_later_training():
    model = lived_in(build_model("digits_resnet", 10, (1, 8, 8), (0.3,), (0.4,), 0))
    smoothed = SmoothedClassifier(model, 10, 0.5)
    image = torch.rand(1, 8, 8)
    before = smoothed.counts(image, Phase("x", 200, 100), "a")
    for parameter in model.parameters():
        parameter.data.zero_()
    assert (smoothed.counts(image, Phase("x", 200, 100), "a") == before).all()


def test_low_precision_rounds_the_network_and_not_the_noise():
    model = lived_in(build_model("digits_resnet", 10, (1, 8, 8), (0.3,), (0.4,), 0))
    image, phase = torch.rand(1, 8, 8), Phase("x", 400, 100)
    exact = SmoothedClassifier(model, 10, 0.5).counts(image, phase, "a")
    rough = SmoothedClassifier(model, 10, 0.5, dtype="bfloat16").counts(image, phase, "a")
    assert rough.sum() == 400 and abs(exact - rough).sum() <= 40, "the same noise: nearly all answers agree"
    seen = []
    ready = prepare(model, dtype="bfloat16")
    ready.network.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    assert ready(image[None]).dtype == torch.float32 and seen == [torch.bfloat16]
