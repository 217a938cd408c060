"""Denoised smoothing (Salman et al. 2020) on digits: a classifier that never saw noise, with a denoiser before it.

``python denoised_digits.py DIR`` trains both in about a minute on one core, and writes ``classifier.pth`` and
``denoised.pth``, which jobs.certify takes with ``--model denoised_digits:classifier`` and ``…:denoised``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from acr_ray.data import open_images

SIGMA = 0.5


def classifier(num_classes: int = 10) -> nn.Module:
    """(B, 1, 8, 8) in [0, 1] to (B, num_classes) logits; it normalises inside."""
    return nn.Sequential(
        nn.BatchNorm2d(1), nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, num_classes),
    )  # fmt: skip


class Denoiser(nn.Module):
    """(B, 1, 8, 8) noisy images to (B, 1, 8, 8) clean ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).view_as(x)


def denoised(num_classes: int = 10) -> nn.Module:
    """A denoiser and a classifier: for smoothing just another network."""
    return nn.Sequential(Denoiser(), classifier(num_classes))


def train(network: nn.Module, steps: int, loss_of, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Adam on batches of 128."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(steps):
        chosen = torch.randint(len(images), (128,))
        loss = loss_of(network, images[chosen], labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def main(folder: Path) -> None:
    """Train both and write them."""
    torch.manual_seed(0)
    digits = open_images("digits", None, "train")
    images, labels = digits.load(range(len(digits)), None), torch.from_numpy(digits.labels)
    net = train(classifier(), 1000, lambda f, x, y: nn.functional.cross_entropy(f(x), y), images, labels)

    def denoising(f: nn.Module, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(f(x + SIGMA * torch.randn_like(x)), x)

    both = nn.Sequential(train(Denoiser(), 6000, denoising, images, labels), net)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), folder / "classifier.pth")
    torch.save(both.state_dict(), folder / "denoised.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
