"""The field's networks with its parameter names, written anew from the papers and the names in its checkpoints.

`field_model` is ``nn.Sequential(normalisation, network)``, whose constants are plain tensors: they are in no state.
"""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class FieldNet(nn.Module):
    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(blocks - 1)))
        self.avgpool, self.fc = nn.AvgPool2d(8), nn.Linear(64, classes)

    def features(self, x):
        return self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))

    def forward(self, x):
        return self.fc(self.avgpool(self.features(x)).flatten(1))


class Normalization(nn.Module):
    def __init__(self, mean, std) -> None:
        super().__init__()
        self.means, self.sds = torch.tensor(mean), torch.tensor(std)

    def forward(self, x):
        return (x - self.means.to(x)[:, None, None]) / self.sds.to(x)[:, None, None]


CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def lived_in(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics that no fresh network has; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_mean"):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.ndim > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
            elif tensor.is_floating_point():  # small in the second half of a block, so that deep networks stay tame
                scale = 0.2 if ".bn2." in name else 0.8
                tensor.copy_(scale * (0.5 + torch.rand(tensor.shape, generator=generator)))
    return network.eval()


def field_model(depth: int = 20, classes: int = 10, constants=CIFAR10) -> nn.Sequential:
    """Normalisation and a residual network for CIFAR."""
    return nn.Sequential(Normalization(*constants), lived_in(FieldNet(depth, classes)))
