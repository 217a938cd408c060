"""Small float64 networks and batches for the tests of training methods."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from acr_ray.training.methods import Batch

SHAPE, CLASSES = (2, 5, 5), 4


def network(norm=False, seed=0, scale=3.0):
    """Without batch norm a row's logits depend on that row alone, so a reference can go row by row."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm2d(6)] if norm else []
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), *middle, nn.Tanh(), nn.Flatten(), nn.Linear(150, CLASSES)
        ).double()
        with torch.no_grad():
            model[-1].weight *= scale
            model(torch.rand(64, *SHAPE, dtype=torch.float64))
    return model.train()


def batch(model, images=6, m=4, sigma=0.5, progress=12.25, seed=1, right=0.6):
    """Random images and noise; about the share ``right`` of the labels are the network's mean prediction."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(images, *SHAPE, generator=generator, dtype=torch.float64)
    noise = sigma * torch.randn(images * m, *SHAPE, generator=generator, dtype=torch.float64)
    model.eval()
    with torch.no_grad():
        logits = model(x.repeat_interleave(m, 0) + noise)
    model.train()
    top = logits.softmax(1).unflatten(0, (images, m)).mean(1).argmax(1)
    wrong = torch.arange(images) >= round(right * images)
    labels = torch.where(wrong, (top + 1) % CLASSES, top)
    seeds = np.arange(images, dtype=np.int64) * 977 + seed
    return Batch(x, labels, noise, m, sigma, progress, model, seeds, CLASSES)


def part(whole, first, stop):
    """The share of a batch that a worker with the images ``first`` to ``stop - 1`` would have."""
    rows = slice(first * whole.m, stop * whole.m)
    return replace(
        whole,
        images=whole.images[first:stop],
        labels=whole.labels[first:stop],
        noise=whole.noise[rows],
        seeds=whole.seeds[first:stop],
    )


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
