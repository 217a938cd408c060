"""The network of a run in the forms that training needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from acr_ray import __version__
from acr_ray.data import ImageSet
from acr_ray.models import ModelCard, build_model
from acr_ray.models.checkpoint import sources_of
from acr_ray.settings import Recipe, derive_seed
from acr_ray.smoothing.arithmetic import LOWER, use_float32
from acr_ray.training.group import Group
from acr_ray.training.initial import Contents, load_initial
from acr_ray.training.narrow import use_narrow
from acr_ray.training.passes import PassCounter
from acr_ray.training.precision import in_precision

RECOMPILES = 64  # blocks compiled for train and evaluation mode, frozen or not, and each bucket's size


@dataclass(frozen=True)
class Networks:
    """One network; all three share its weights.

    Attributes:
        module: the bare network in float32: what is saved.
        network: the same in the recipe's precision: what attacks and p_A estimates pass.
        model: the same with gradients averaged over the workers (DDP): what learns.
        parallel: the DDP wrapper inside ``model``, which can leave gradients where they are; with one worker the
            bare network.
        passes: counts the rows that any of them passes.
        device: where they are.
        memory_format: of their inputs and weights.
        uses_torch_rng: whether a layer draws from torch's global generator while it trains, as dropout does.
        captures: whether passes may be captured as CUDA graphs: as part of compiling, on a GPU.
    """

    module: nn.Module
    network: nn.Module
    model: nn.Module
    parallel: nn.Module
    passes: PassCounter
    device: str
    memory_format: torch.memory_format
    uses_torch_rng: bool
    captures: bool


def build_networks(
    recipe: Recipe,
    images: ImageSet,
    seed: int,
    group: Group,
    device: str,
    contents: Contents = {},  # noqa: B006 - never written to
) -> Networks:
    """A network of the recipe, freshly initialised or with the weights of ``training.init``; the same on every worker.

    Raises:
        UserError: ``training.init`` does not fit, or is not the checkpoint of ``contents``.
    """
    t = recipe.training
    memory_format = torch.channels_last if t.channels_last else torch.contiguous_format
    use_float32("tf32" if t.precision == "tf32" else "ieee")
    bare = build_model(
        recipe.model.architecture,
        len(images.class_names),
        images.shape,
        images.mean,
        images.std,
        derive_seed(seed, "init"),
    )
    load_initial(bare, recipe, images, contents)
    # torch's stubs lack the signature with both.
    module = bare.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    passes, captures = PassCounter(module), t.compile and torch.device(device).type == "cuda"
    if captures and t.precision in LOWER:
        use_narrow(module.network)
    if t.compile:
        compile_blocks(module.network)
    parallel = group.wrap(module, compression=t.gradient_compression, sync_batch_norm=t.sync_batch_norm)
    module = getattr(parallel, "module", parallel) if group.world > 1 else parallel
    return Networks(
        module=module,
        network=in_precision(module, t.precision, device),
        model=in_precision(parallel, t.precision, device),
        parallel=parallel,
        passes=passes,
        device=device,
        memory_format=memory_format,
        uses_torch_rng=any(_draws(inner) for inner in module.modules()),
        captures=captures,
    )


def model_card(recipe: Recipe, images: ImageSet, seed: int, fingerprint: str) -> ModelCard:
    """Return the card of what a recipe has trained.

    Args:
        images: the training split.
        seed: of the run.
        fingerprint: of the images.
    """
    return ModelCard(
        architecture=recipe.model.architecture,
        num_classes=len(images.class_names),
        shape=images.shape,
        mean=images.mean,
        std=images.std,
        class_names=images.class_names,
        sigma=recipe.training.sigma,
        dataset=recipe.data.dataset,
        recipe=recipe.model_dump(mode="json"),
        data_fingerprint=fingerprint,
        seed=seed,
        code_version=__version__,
        sources=sources_of(recipe.model.architecture),
    )


def compile_blocks(network: nn.Module) -> list[nn.Module]:
    """Compile a network's repeated blocks, in place; names of weights stay what they are.

    The blocks of a residual network are the same code with the same shapes, so one of them is compiled for all: a
    ResNet-110 has 54 of them and three or four kinds, and takes seconds in place of minutes for every batch size.

    Returns:
        What was compiled: the outermost modules whose class comes at least three times and holds at least two layers
        with weights; the network itself if there are none.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILES)
    count = Counter(type(module) for module in network.modules())
    blocks: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in network.modules():
        weighted = sum(isinstance(inner, (nn.Conv2d, nn.Linear)) for inner in module.modules())
        if count[type(module)] < 3 or weighted < 2 or type(module) is nn.Sequential or module in inside:
            continue
        blocks.append(module)
        inside |= set(module.modules())
    blocks = blocks or [network]
    for block in blocks:
        block.compile(dynamic=False)
    return blocks


def _draws(module: nn.Module) -> bool:
    return "Drop" in type(module).__name__ or type(module).__name__ == "StochasticDepth"
