"""Other people's weights as a model of ours: which network, where it normalises, and every tensor accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from acr_ray import __version__
from acr_ray.models.building import CIFAR_DEPTHS, architectures, is_named_elsewhere
from acr_ray.models.checkpoint import ModelCard, hashed, sources_of
from acr_ray.models.foreign import read_foreign
from acr_ray.models.others import is_own_network
from acr_ray.models.unwrapping import Weights, constants_in, fitted, weights_of, without_prefixes
from acr_ray.settings import UserError
from acr_ray.settings.imports import ImportChoices

Constants = tuple[tuple[float, ...], tuple[float, ...]]

#: Mean and standard deviation by channel, as locuslab/smoothing and the code that follows it have them.
FIELD: dict[str, Constants] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
#: The field's names of networks (`arch` in its files) that are not ours.
FIELD_NETWORKS = {"cifar100_resnet110": "cifar_resnet110"}


@dataclass(frozen=True)
class ImagesInfo:
    """What a model must know of its images.

    Attributes:
        dataset: its name.
        shape: (C, H, W).
        class_names: of each logit, in order.
        mean, std: of the data set by channel, inputs in [0, 1].
    """

    dataset: str
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Imported:
    """A model made of a file.

    Attributes:
        model: on the CPU, float32, eval mode, without gradients.
        card: what it is; its `sha256` is that of the folder `save_checkpoint` would write.
        remarks: what was taken for what, a line each, for the user to see.
    """

    model: nn.Module
    card: ModelCard
    remarks: tuple[str, ...]


def import_weights(location: str, choices: ImportChoices, images: ImagesInfo) -> Imported:
    """Read a file of weights as a model for these images; see `read_weights` and `model_of`."""
    return model_of(read_weights(location, choices), choices, images)


def read_weights(location: str, choices: ImportChoices) -> Weights:
    """Read a file of weights, see `acr_ray.models.foreign.read_foreign`. Raises UserError if it is refused."""
    return weights_of(read_foreign(location), choices.ema)


def model_of(weights: Weights, choices: ImportChoices, images: ImagesInfo) -> Imported:
    """Make a model for these images of weights.

    Args:
        choices: what the user says of them.
        images: of the data set.

    Raises:
        UserError: the weights are not this network's for these images; one line that names what differs.
    """
    remarks = [f"weights under {'.'.join(weights.taken)}"] if weights.taken else []
    architecture = choices.model or _field_architecture(weights)
    num_classes = len(images.class_names)
    sigma = choices.sigma or weights.sigma

    def card_with(constants: Constants) -> ModelCard:
        with_constants = replace(images, mean=constants[0], std=constants[1])
        facts = {"sigma": sigma, "code_version": __version__, "sources": sources_of(architecture)}
        return ModelCard.of(architecture, with_constants, **facts)

    channels = images.shape[0]
    nothing: Constants = ((0.0,) * channels, (1.0,) * channels)
    bare = card_with(nothing).build()
    network = bare.get_submodule("network")
    tensors, stored = without_prefixes(weights.tensors, network.state_dict())
    state = fitted(tensors, network.state_dict(), weights.source, architecture)
    absent = len(set(state) - set(tensors))
    remarks += [f"{absent} counters of batch norm are not in the file; they change no output"] * bool(absent)
    constants, why = _constants(choices, weights, images, constants_in(stored), architecture)
    if len(constants[0]) != channels:
        raise UserError(f"--normalization: of {len(constants[0])} channels; {images.dataset} has {channels}")
    remarks.append(f"normalization {_shown(constants)} ({why})")
    remarks.append(f"trained at sigma {sigma:g}" if sigma else "sigma of its training is unknown (give --sigma)")
    # Ours has the normalisation as its first layer, so that noise is added to inputs in [0, 1].
    card = card_with(constants)
    model = card.build()
    model.get_submodule("network").load_state_dict(state)
    model.eval().requires_grad_(False)
    return Imported(model, hashed(model, card), (f"{architecture}, {num_classes} classes", *remarks))


def _field_architecture(weights: Weights) -> str:
    """The network that a file of the field's code names itself."""
    known = (*CIFAR_DEPTHS, *FIELD_NETWORKS, "resnet50")
    if weights.arch is None:
        raise UserError(
            f"{weights.source}: does not say which network it is; give --model (a name of ours or torchvision's, "
            "timm:NAME, or module:function)"
        )
    # What follows is a name of ours or torchvision's; a file never chooses code of the user's to import.
    if weights.arch not in known and (is_named_elsewhere(weights.arch) or weights.arch not in architectures()):
        raise UserError(
            f"{weights.source}: its arch is {weights.arch}, which is none of {', '.join(known)} or torchvision's; "
            "give --model"
        )
    return FIELD_NETWORKS.get(weights.arch, weights.arch)


def _constants(
    choices: ImportChoices, weights: Weights, images: ImagesInfo, stored: Constants | None, architecture: str
) -> tuple[Constants, str]:
    """Mean and standard deviation, and who says so."""
    if choices.normalization is not None:
        chosen = parse_normalization(choices.normalization, images.shape[0])
        if stored is not None and not _close(stored, chosen):
            raise UserError(
                f"{weights.source}: its normalization layer has {_shown(stored)}, "
                f"--normalization {choices.normalization} is {_shown(chosen)}"
            )
        return chosen, "--normalization"
    if stored is not None:
        return stored, "the file's own layer"
    if is_own_network(architecture):
        return parse_normalization("none", images.shape[0]), "module:function normalises itself, if at all"
    if images.dataset in FIELD:
        return FIELD[images.dataset], f"{images.dataset}'s, as the field has it; else give --normalization"
    return (images.mean, images.std), f"{images.dataset}'s; else give --normalization"


def parse_normalization(text: str, channels: int) -> Constants:
    """Return mean and standard deviation by channel; see `ImportChoices`. Raises UserError."""
    if text in ("none", "inside"):
        return (0.0,) * channels, (1.0,) * channels
    if text in FIELD:
        return FIELD[text]
    try:
        mean, std = (tuple(float(v) for v in part.split(",")) for part in text.split("/"))
        if len(mean) == len(std) and all(s > 0 for s in std) and all(abs(v) < 1e6 for v in (*mean, *std)):
            return mean, std
    except ValueError:
        pass
    raise UserError(
        f"--normalization {text[:80]}: allowed: none, {', '.join(FIELD)}, or MEAN/STD with a number a channel, "
        "such as 0.5,0.5,0.5/0.5,0.5,0.5"
    )


def _close(one: Constants, other: Constants) -> bool:
    pairs = [(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=False)]
    return [len(part) for part in one] == [len(part) for part in other] and all(abs(a - b) <= 1e-4 for a, b in pairs)


def _shown(constants: Constants) -> str:
    if not any(constants[0]) and set(constants[1]) == {1.0}:
        return "none"
    parts: Sequence[str] = [",".join(f"{value:.4g}" for value in part) for part in constants]
    return "/".join(parts)
