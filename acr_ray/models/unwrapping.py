"""The weights inside a file's wrappings: keys such as ``state_dict``, and prefixes such as ``module.`` or ``1.``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from acr_ray.models.foreign import ForeignFile, Ignored
from acr_ray.settings import UserError

PLAIN_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module")
EMA_KEYS = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model")
#: Of DataParallel and DDP, of ``nn.Sequential(NormalizeLayer, net)``, of Lightning modules, and of our own models.
PREFIXES = ("module.", "1.", "model.", "net.", "network.")
#: Where a normalisation layer's constants stand beside such prefixes, and how they are called.
LAYERS = ("0.", "normalize.", "normalizer.", "normalization.", "norm_layer.")
MEANS, DEVIATIONS = ("mean", "means", "mu"), ("std", "stds", "sd", "sds", "sigma")
COUNTER = "num_batches_tracked"  # of batch norm: not in files of PyTorch before 0.4.1, and no part of the function
SIGMAS = ("sigma", "noise_sd", "noise")  # the field's names of the training noise

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """Tensors and what stood beside them.

    Attributes:
        source: the file, for messages.
        tensors: by the names in the file.
        taken: the keys that led there, e.g. ``("state_dict",)``.
        beside: plain values of the outermost dictionary, such as ``arch`` and ``epoch``.
    """

    source: str
    tensors: Tensors
    taken: tuple[str, ...]
    beside: Mapping[str, Any]

    @property
    def arch(self) -> str | None:
        """The name under ``arch``, as the field's code stores it."""
        found = self.beside.get("arch")
        return found if isinstance(found, str) and len(found) <= 100 else None

    @property
    def sigma(self) -> float | None:
        """The training noise, where the file says it: by itself, or among the options under ``args``."""
        options = self.beside.get("args")
        options = options.values if isinstance(options, Ignored) else options
        for values in (self.beside, options):
            if isinstance(values, Mapping):
                found = [values[name] for name in SIGMAS if type(values.get(name)) in (int, float)]
                if inside := [float(value) for value in found if 0 < value <= 100]:
                    return inside[0]
        return None


def weights_of(file: ForeignFile, ema: bool = False) -> Weights:
    """Find the weights in a file.

    Args:
        ema: take the averaged weights, where a file holds both.

    Raises:
        UserError: there are none, or only averaged ones and these are not asked for.
    """
    content: Any = file.content
    taken: list[str] = []
    beside = content if isinstance(content, dict) and not _is_state(content) else {}
    want_ema = ema
    while not _is_state(content) or (want_ema and any(isinstance(content.get(key), dict) for key in EMA_KEYS)):
        if not isinstance(content, dict):
            raise UserError(f"{file.source}: holds no weights (a {type(content).__name__})")
        inside = [key for key in content if isinstance(content[key], dict)]
        key = next((key for key in (EMA_KEYS if want_ema else PLAIN_KEYS) if key in inside), None)
        if key is None and want_ema:  # perhaps one level further in
            key = next((key for key in PLAIN_KEYS if key in inside), None)
        elif want_ema:
            want_ema = False
        if key is None:
            averaged = next((key for key in EMA_KEYS if key in inside), None)
            if averaged and not ema:
                raise UserError(f"{file.source}: holds averaged weights ({averaged}) only; give --ema to take them")
            raise UserError(f"{file.source}: no weights under {', '.join(PLAIN_KEYS)}; its keys: {_listed(content)}")
        content, taken = content[key], [*taken, key]
    if want_ema:
        raise UserError(f"{file.source}: --ema: there are no averaged weights under {', '.join(EMA_KEYS)}")
    plain = {str(k): v for k, v in beside.items() if isinstance(v, (str, int, float, dict, Ignored))}
    return Weights(file.source, dict(content), tuple(taken), plain)


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def _listed(values: Mapping[Any, Any]) -> str:
    names = [str(name)[:60] for name in values]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def cifar_names(name: str) -> str:
    """Return our name of a parameter of the field's residual networks for CIFAR."""
    for theirs, ours in (("layer1.", "stage1."), ("layer2.", "stage2."), ("layer3.", "stage3.")):
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    return name.replace(".downsample.", ".shortcut.")


def _as_it_is(name: str) -> str:
    return name


RENAMES: tuple[Callable[[str], str], ...] = (_as_it_is, cifar_names)


def without_prefixes(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> tuple[Tensors, Tensors]:
    """Take off prefixes until the names are those of the network, or none is left.

    Args:
        tensors: by the names in the file.
        expected: the network's own.

    Returns:
        The network's tensors, and the constants of a normalisation layer by the names in the file, if there are any.
    """
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    constants: Tensors = {}
    nearest: tuple[int, Tensors, Tensors] = (-1, {}, {})  # names in common, and what would be shown
    while True:
        for rename in RENAMES:
            renamed = {rename(name): tensor for name, tensor in tensors.items()}
            if len(renamed) == len(tensors) and _same(renamed, expected):
                return renamed, constants
        found = {name: tensor for name, tensor in tensors.items() if _is_constant(name, tensor)}
        rest = {name: tensor for name, tensor in tensors.items() if name not in found and name != "n_averaged"}
        # Neither name for name nor by a prefix: shown as they are, in the words that are nearest to the network's.
        for rename in RENAMES:
            named = {rename(name): tensor for name, tensor in rest.items()}
            if (common := len(set(named) & set(expected))) > nearest[0]:
                nearest = (common, named, constants | found)
        prefix = next((p for p in PREFIXES if rest and all(name.startswith(p) for name in rest)), None)
        if prefix is None:
            return nearest[1], nearest[2]
        tensors, constants = {name.removeprefix(prefix): t for name, t in rest.items()}, constants | found


def _same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    return {n for n in found if not n.endswith(COUNTER)} == {n for n in expected if not n.endswith(COUNTER)}


def _is_constant(name: str, tensor: torch.Tensor) -> bool:
    name = name.removeprefix("module.")
    layer = next((layer for layer in LAYERS if name.startswith(layer)), None)
    return layer is not None and name.removeprefix(layer) in (*MEANS, *DEVIATIONS) and tensor.numel() <= 64


def constants_in(constants: Tensors) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation, by channel, of what `without_prefixes` has found; None if incomplete."""
    last = {name.rpartition(".")[2]: tensor.double().flatten() for name, tensor in constants.items()}
    mean = next((last[name] for name in MEANS if name in last), None)
    std = next((last[name] for name in DEVIATIONS if name in last), None)
    if mean is None or std is None:
        return None
    # To the nearest float32, and from there to the shortest number that stands for it: 0.4914, not 0.49140000343…
    return tuple(float(str(v.float().numpy())) for v in mean), tuple(float(str(v.float().numpy())) for v in std)


def fitted(tensors: Tensors, expected: Mapping[str, torch.Tensor], where: str, architecture: str) -> Tensors:
    """Check every name, shape and type, and give them the network's types.

    Args:
        tensors: of the network, by its names.
        expected: the network's own.
        where: the file, for messages.
        architecture: the network's name, for messages.

    Raises:
        UserError: names the first that are missing, not the network's, or of another shape, and how many there are.
    """
    missing = [name for name in expected if name not in tensors and not name.endswith(COUNTER)]
    surplus = [name for name in tensors if name not in expected]
    problems = [f"lacks {_listed(dict.fromkeys(missing))}"] * bool(missing)
    problems += [f"has {_listed(dict.fromkeys(surplus))}, which is not in it"] * bool(surplus)
    if problems:
        raise UserError(f"{where}: is not a {architecture}: {'; '.join(problems)} (is --model right?)")
    other = [name for name, tensor in tensors.items() if tensor.shape != expected[name].shape]
    if other:
        first = "; ".join(f"{n} {tuple(tensors[n].shape)} for {tuple(expected[n].shape)}" for n in other[:3])
        rest = f" and {len(other) - 3} more" if len(other) > 3 else ""
        classes = _classes(tensors, expected, other)
        raise UserError(f"{where}: tensors of other shapes than the {architecture}'s: {first}{rest}{classes}")
    result = {}
    for name, own in expected.items():
        tensor = tensors.get(name, torch.zeros_like(own))
        if (
            tensor.is_floating_point() != own.is_floating_point()
            or tensor.is_complex()
            or tensor.dtype == torch.bool != own.dtype
        ):
            raise UserError(f"{where}: {name} has type {tensor.dtype}; expected {own.dtype}")
        result[name] = tensor.to(own.dtype)
        if not torch.isfinite(result[name]).all():
            raise UserError(f"{where}: {name} holds values that are not finite (did the training diverge?)")
    return result


def _classes(found: Tensors, expected: Mapping[str, torch.Tensor], other: list[str]) -> str:
    """Say so if all that differs is the number of classes."""
    pairs = {(found[n].shape[0], expected[n].shape[0]) for n in other if found[n].ndim and expected[n].ndim}
    same = all(found[n].shape[1:] == expected[n].shape[1:] for n in other)
    if same and len(pairs) == 1:
        theirs, ours = pairs.pop()
        return f": it has {theirs} classes, the data set {ours}"
    return ""
