"""Which layers the narrow convolution may stand in for."""

import pytest
from torch import nn

from acr_ray.smoothing.narrow import is_narrow


class Subclass(nn.Conv2d):
    pass


def hooked(kind):
    layer = nn.Conv2d(16, 16, 3, padding=1)
    getattr(layer, f"register_{kind}")(lambda *a: None)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3, padding=0),
        nn.Conv2d(16, 16, 3, padding="same"),
        nn.Conv2d(16, 16, 3, padding=(1, 0)),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 3, padding=1, dilation=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.Conv2d(16, 16, 5, padding=1),
        nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 16, (3, 1), padding=1),
        nn.Conv2d(16, 16, 3, padding=1, stride=3),
        nn.Conv2d(16, 16, 3, padding=1, stride=(1, 2)),
        nn.Conv2d(3, 16, 3, padding=1, stride=2),
        nn.Conv2d(9, 16, 3, padding=1),
        nn.Conv2d(48, 16, 3, padding=1),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.Conv2d(16, 10, 3, padding=1),
        nn.ConvTranspose2d(16, 16, 3, padding=1),
        nn.Conv1d(16, 16, 3, padding=1),
        nn.Linear(16, 16),
        Subclass(16, 16, 3, padding=1),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1)),
        *map(hooked, ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")),
    ],
    ids=str,
)
def test_other_layers_are_left_alone(layer):
    assert not is_narrow(layer)


@pytest.mark.parametrize(
    ("inputs", "outputs", "stride"), [(1, 16, 1), (8, 64, 1), (16, 16, 1), (16, 32, 2), (32, 64, 2), (64, 64, 1)]
)
def test_layers_of_the_fields_small_networks_are_narrow(inputs, outputs, stride):
    assert all(is_narrow(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)) for bias in (False, True))
