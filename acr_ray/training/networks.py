"""The network of a run in the forms that training needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from acr_ray.data import ImageSet
from acr_ray.models import build_model
from acr_ray.settings import Recipe, derive_seed
from acr_ray.training.group import Group
from acr_ray.training.passes import PassCounter
from acr_ray.training.precision import in_precision

RECOMPILES = 64  # networks compiled for train and evaluation mode, frozen or not, and each bucket's size


@dataclass(frozen=True)
class Networks:
    """One network; all three share its weights.

    Attributes:
        module: the bare network in float32: what is saved.
        network: the same in the recipe's precision: what attacks and p_A estimates pass.
        model: the same with gradients averaged over the workers (DDP): what learns.
        passes: counts the rows that any of them passes.
        device: where they are.
        memory_format: of their inputs and weights.
        uses_torch_rng: whether a layer draws from torch's global generator while it trains, as dropout does.
    """

    module: nn.Module
    network: nn.Module
    model: nn.Module
    passes: PassCounter
    device: str
    memory_format: torch.memory_format
    uses_torch_rng: bool


def build_networks(recipe: Recipe, images: ImageSet, seed: int, group: Group, device: str) -> Networks:
    """A freshly initialised network of the recipe; the same on every worker."""
    t = recipe.training
    memory_format = torch.channels_last if t.channels_last else torch.contiguous_format
    module = build_model(
        recipe.model.architecture, len(images.class_names), images.shape, images.mean, images.std,
        derive_seed(seed, "init"),
    ).to(device=device, memory_format=memory_format)  # fmt: skip
    passes = PassCounter(module)
    if t.compile:
        # Below the counter's hooks and DDP, in place: names of weights stay what they are.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILES)
        module.network.compile(dynamic=False)
    model = group.wrap(module, compression=t.gradient_compression, sync_batch_norm=t.sync_batch_norm)
    module = getattr(model, "module", model) if group.world > 1 else model
    return Networks(
        module=module,
        network=in_precision(module, t.precision, device),
        model=model if t.precision == "float32" else in_precision(model, t.precision, device),
        passes=passes,
        device=device,
        memory_format=memory_format,
        uses_torch_rng=any(_draws(inner) for inner in module.modules()),
    )


def _draws(module: nn.Module) -> bool:
    return "Drop" in type(module).__name__ or type(module).__name__ == "StochasticDepth"
