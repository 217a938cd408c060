"""Models by name; the first layer of each normalises, so noise is added to inputs in [0, 1]."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from acr_ray.models.others import TIMM, is_own_network, own_network, timm_network
from acr_ray.models.residual import CifarResNet, DigitsResNet
from acr_ray.settings import UserError

CIFAR_DEPTHS = {f"cifar_resnet{depth}": depth for depth in (20, 32, 50, 56, 110)}
OWN = ("digits_resnet", *CIFAR_DEPTHS)
# Far beyond any real use; a damaged description must not make us build something that fills the memory.
MAX_CLASSES, MAX_CHANNELS, MAX_SIDE = 100_000, 64, 1024


class OfImages(Protocol):
    """What a card says of a data set: `acr_ray.data.ImageSet` has it, and `acr_ray.models.importing.ImagesInfo`."""

    @property
    def dataset(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...


def architectures() -> tuple[str, ...]:
    """The names of all architectures: ours, and torchvision's classifiers. Loads torchvision, which takes seconds."""
    import torchvision

    return (*OWN, *sorted(torchvision.models.list_models(module=torchvision.models)))


class Normalize(nn.Module):
    """(x - mean) / std per channel, on (B, C, H, W)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise UserError(f"mean = {tuple(mean)}, std = {tuple(std)}: one pair a channel, std > 0")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


def build_model(
    architecture: str,
    num_classes: int,
    shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> nn.Module:
    """A freshly initialised model: (B, C, H, W) images in [0, 1] to (B, num_classes) logits; train mode, float32, CPU.

    Its state has the names ``normalize.*`` and ``network.*``; these are part of the file format of checkpoints.

    Args:
        architecture: one of `architectures`: ours, or a torchvision classifier by its name; or ``timm:NAME``; or
            ``module:function``, a function of the user's that returns an `nn.Module`. Its module is imported and run:
            whoever calls this has seen to it that the user named it.
        num_classes: 2 to 100,000.
        shape: (C, H, W) of the images.
        mean, std: per channel, of inputs in [0, 1].
        seed: the initial weights are a function of it; torch's global random state is left alone.

    Raises:
        UserError: unknown architecture, or one that images of this shape do not fit.
    """
    channels, height, width = shape
    if not is_named_elsewhere(architecture) and architecture not in OWN and architecture not in architectures():
        raise UserError(
            f"model.architecture = {architecture}: unknown; allowed: {', '.join(architectures())}; "
            "timm:NAME; module:function"
        )
    if not (1 <= channels <= MAX_CHANNELS and 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UserError(f"image shape {tuple(shape)}: allowed: up to {MAX_CHANNELS} x {MAX_SIDE} x {MAX_SIDE}")
    if not 2 <= num_classes <= MAX_CLASSES:
        raise UserError(f"num_classes = {num_classes}; allowed: 2 to {MAX_CLASSES}")
    if len(mean) != channels:
        raise UserError(f"mean of {len(mean)} channels for images of {channels}")
    # The CPU generator alone is forked and seeded: torch.manual_seed would reseed the GPUs as well.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        network = _network(architecture, num_classes, channels)
        model = nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network))
        _check_fit(model, architecture, num_classes, (channels, height, width))
    return model


def is_named_elsewhere(architecture: str) -> bool:
    """Return whether an architecture is no name of ours or torchvision's: ``timm:NAME`` or ``module:function``."""
    return architecture.startswith(TIMM) or is_own_network(architecture)


def _network(architecture: str, num_classes: int, channels: int) -> nn.Module:
    if architecture.startswith(TIMM):
        return timm_network(architecture, num_classes, channels)
    if is_own_network(architecture):
        return own_network(architecture, num_classes)
    if architecture == "digits_resnet":
        return DigitsResNet(channels, num_classes)
    if architecture in CIFAR_DEPTHS:
        return CifarResNet(CIFAR_DEPTHS[architecture], channels, num_classes)
    import torchvision

    # These two give a tuple in train mode unless their auxiliary heads are off.
    more = {"aux_logits": False, "init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(architecture, weights=None, num_classes=num_classes, **more)


def _check_fit(model: nn.Module, architecture: str, num_classes: int, shape: tuple[int, int, int]) -> None:
    """One grey image through the model, in eval mode so that no statistics move."""
    model.eval()
    own, found = is_own_network(architecture), None
    try:
        with torch.no_grad():
            answer = model(torch.full((1, *shape), 0.5))
            found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
    except (RuntimeError, ValueError, AssertionError) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    except Exception as error:  # a user's code may fail in any way
        if not own:
            raise
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    model.train()
    if found != (1, num_classes) and is_named_elsewhere(architecture):
        raise UserError(
            f"model.architecture = {architecture}: gives {found} for one image of shape {shape}; "
            f"expected logits of shape {(1, num_classes)}"
        )
    if found != (1, num_classes):
        ours = ", ".join(["digits_resnet (8x8)", *CIFAR_DEPTHS])
        raise UserError(
            f"model.architecture = {architecture}: does not fit images of shape {shape}; "
            f"there are {ours}, and torchvision's classifiers (3 channels, most at 224x224)"
        )
