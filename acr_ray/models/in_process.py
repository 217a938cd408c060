"""A model that lives in the user's own process, such as a notebook: no name can build it, so it travels itself."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections import OrderedDict
from dataclasses import replace

import torch
from torch import nn

from acr_ray import __version__
from acr_ray.models.building import Normalize
from acr_ray.models.checkpoint import ModelCard, hashed
from acr_ray.models.importing import ImagesInfo, parse_normalization
from acr_ray.models.state import state_bytes
from acr_ray.settings import UserError
from acr_ray.settings.own_code import PYTHON

LIBRARIES = ("torch", "torchvision", "timm", "acr_ray")  # known by version and settings, not by source


def is_in_process(card: ModelCard) -> bool:
    """Return whether no name can build a card's network."""
    return card.architecture.startswith(f"{PYTHON}:")


def to_send(card: ModelCard, model: nn.Module) -> bytes | nn.Module:
    """Return what a sampler builds a card's network from: its weights, or the model itself if no name builds it."""
    return model if is_in_process(card) else state_bytes(model)


def described(module: nn.Module, images: ImagesInfo, normalization: str | None = None) -> tuple[nn.Module, ModelCard]:
    """Make a model of ours, and its card, of a module at hand.

    Args:
        module: maps ``(B, C, H, W)`` in [0, 1] to logits ``(B, K)``; is copied. A model of `build_model` keeps its
            normalization.
        images: that it is for. Their classes may be bare numbers; then there are as many as logits.
        normalization: as `ImportChoices`; None: the module normalises itself, or not at all.

    Returns:
        The model, on the CPU in float32, eval mode, without gradients, with ``normalize`` before ``network``; its
        `sha256` is that of a folder which `save_checkpoint` would write.

    Raises:
        UserError: it cannot be copied, fails on an image of this shape, or gives something else than logits.
    """
    if isinstance(module, nn.DataParallel):  # spreads over GPUs, which the samplers do themselves
        module = module.module
    name = type(module).__name__
    try:
        network = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        raise UserError(f"model: a {name} that cannot be copied ({_said(error)})") from error
    if ours := _as_built(network):
        if normalization is not None:
            raise UserError(f"normalization {normalization}: the model has its own, as its first layer")
        model, first = network, ours
    else:
        first = Normalize(*parse_normalization(normalization or "none", images.shape[0]))
        model = nn.Sequential(OrderedDict(normalize=first, network=network)).eval().requires_grad_(False)
    classes = _logits(model, images.shape, name)
    names = images.class_names if len(images.class_names) == classes else tuple(map(str, range(classes)))
    mean, std = (tuple(float(f"{value:.7g}") for value in part.flatten().tolist()) for part in (first.mean, first.std))
    architecture = f"{PYTHON}:{name}"
    card = ModelCard.of(
        architecture,
        replace(images, mean=mean, std=std, class_names=names),
        code_version=__version__,
        sources={architecture: f"sha256:{_code_of(network)}"},
    )
    return model, hashed(model, card)


def _as_built(network: nn.Module) -> Normalize | None:
    parts = dict(network.named_children())
    first = parts.get("normalize")
    built = type(network) is nn.Sequential and list(parts) == ["normalize", "network"]
    return first if built and isinstance(first, Normalize) else None


def _logits(model: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """How many logits there are, from one grey image."""
    try:
        with torch.no_grad():
            answer = model(torch.full((2, *shape), 0.5))
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        raise UserError(f"model: {name} fails on images of shape {shape} ({_said(error)})") from error
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or answer.shape[0] != 2 or answer.shape[1] < 2:
        found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise UserError(f"model: {name} gives {found} for two images of shape {shape}; needed: logits (2, classes)")
    return answer.shape[1]


def _code_of(network: nn.Module) -> str:
    """A hash of what the weights do not say: the source of the user's classes, and each module's plain settings."""
    found, seen = hashlib.sha256(), set()
    for path, module in network.named_modules():
        kind = type(module)
        settings = {
            key: value
            for key, value in sorted(vars(module).items())
            if not key.startswith("_") and key != "training" and isinstance(value, (int, float, str, tuple))
        }
        found.update(repr((path, kind.__module__, kind.__qualname__, settings)).encode())
        if kind not in seen and kind.__module__.partition(".")[0] not in LIBRARIES:
            seen.add(kind)
            found.update(_source(kind).encode())
    return found.hexdigest()


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed into a prompt, say
        return "no source at hand"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
