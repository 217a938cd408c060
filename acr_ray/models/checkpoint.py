"""A model on disk: ``model.safetensors`` (weights) and ``model.json`` (what they are)."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import nn

from acr_ray.formats.files import CHECKPOINT as SUBFOLDER
from acr_ray.formats.files import MODEL_CARD as CARD
from acr_ray.formats.files import MODEL_WEIGHTS as WEIGHTS
from acr_ray.models.building import MAX_CHANNELS, MAX_CLASSES, MAX_SIDE, OfImages, build_model
from acr_ray.models.others import is_own_network
from acr_ray.models.state import check_tensors, read_tensors, state_bytes
from acr_ray.settings import UserError
from acr_ray.settings.own_code import module_of
from acr_ray.settings.own_source import source_hashes
from acr_ray.storage import Folder

SCHEMA_VERSION = 1
MOST_HEADER = 64 * 2**20  # bytes of a file of weights beside the weights
PICKLE_ENDINGS = (".pt", ".pth", ".tar", ".pkl", ".pickle", ".bin", ".ckpt", ".gz", ".zip")

# Versions before 0.2 averaged the normalisation constants over the workers, which moves their last bits (by 1e-7 of
# their size). Such a checkpoint is repaired: its constants are those that the description names.
DRIFT = 1e-5

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class ModelCard:
    """What the weights are.

    Attributes:
        architecture: name for `build_model`.
        num_classes: number of logits.
        shape: (C, H, W) of the images.
        mean, std: per channel, of inputs in [0, 1]; the model's first layer.
        class_names: name of each logit.
        sigma: standard deviation of the noise it was trained on; None: unknown.
        dataset: name of the data set it was trained on.
        recipe: settings of the training run.
        data_fingerprint: of the training images.
        seed: of the training run.
        code_version: version of this package that wrote it.
        sources: SHA-256 of the files behind an architecture ``module:function``, by module; else empty.
        sha256: of the bytes of ``model.safetensors``; set when saved.
        schema_version: of this description.

    Raises pydantic's ValidationError where a value is out of range.
    """

    architecture: str
    num_classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    shape: tuple[Annotated[int, Field(ge=1, le=MAX_CHANNELS)], Side, Side]
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    class_names: tuple[str, ...]
    sigma: Positive | None = None
    dataset: str = ""
    recipe: dict[str, Any] | None = field(default=None, hash=False)
    data_fingerprint: str = ""
    seed: int = 0
    code_version: str = ""
    sources: dict[str, str] = field(default_factory=dict, hash=False)
    sha256: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} class names for {self.num_classes} classes")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError(f"mean and std of {len(self.mean)} and {len(self.std)} channels; shape {self.shape}")

    @classmethod
    def of(cls, architecture: str, images: OfImages, **more: Any) -> ModelCard:
        """Return the card of a network for these images, with a logit for each of their classes.

        Args:
            more: the other attributes, by name.
        """
        return cls(
            architecture=architecture,
            num_classes=len(images.class_names),
            shape=images.shape,
            mean=images.mean,
            std=images.std,
            class_names=images.class_names,
            dataset=images.dataset,
            **more,
        )

    @property
    def data_root(self) -> str | None:
        """Where the training images were, as the file says: to be shown to the user, not to be opened."""
        data = (self.recipe or {}).get("data")
        root = data.get("root") if isinstance(data, dict) else None
        return root[:200] if isinstance(root, str) else None

    def build(self, seed: int = 0) -> nn.Module:
        """A freshly initialised model of this description; see `build_model`."""
        return build_model(self.architecture, self.num_classes, self.shape, self.mean, self.std, seed)


def save_checkpoint(folder: Folder, model: nn.Module, card: ModelCard) -> ModelCard:
    """Write both files, the description last, so that it never describes weights that are not there; read them back.

    Args:
        folder: where to; created where absent.
        model: of `card`, bare (not wrapped by DDP or compiled); any device, floats are stored as float32.
        card: its `sha256` is replaced.

    Returns:
        The card as written.

    Raises:
        ValueError: the model is not what the card describes.
        UserError: the folder cannot be written, or `load_checkpoint` refuses what was written.
    """
    state = {
        name: (tensor.float() if tensor.is_floating_point() else tensor) for name, tensor in model.state_dict().items()
    }
    reference = card.build()
    try:
        check_tensors(state, reference.state_dict(), "model")
    except UserError as error:
        raise ValueError(f"not the model that the card describes: {error}") from None
    for name, constant in _constants(reference.state_dict()).items():
        if not torch.allclose(state[name].cpu(), constant, rtol=DRIFT, atol=0):
            raise ValueError(f"not the model that the card describes: {name} is not its {name.partition('.')[2]}")
    reference.load_state_dict(state | _constants(reference.state_dict()))
    content = state_bytes(reference)
    sha256 = hashlib.sha256(content).hexdigest()
    folder.make_writable()
    folder.write_bytes(WEIGHTS, content)
    folder.write_json(CARD, card_values(dataclasses.replace(card, sha256=sha256, schema_version=SCHEMA_VERSION)))
    return load_checkpoint(folder.uri, card.architecture)[1]


def card_values(card: ModelCard) -> dict[str, Any]:
    """Return a card as `CARD` holds it; without what only a model of the user's own code has, if it is none."""
    values = dataclasses.asdict(card)
    if not card.sources:
        del values["sources"]
    return values


def hashed(model: nn.Module, card: ModelCard) -> ModelCard:
    """Return the card with the hash of the weights, as if model and card had been saved."""
    return dataclasses.replace(card, sha256=hashlib.sha256(state_bytes(model)).hexdigest())


def sources_of(architecture: str) -> dict[str, str]:
    """Return the hashes of the files behind ``module:function``; empty for every other architecture."""
    return source_hashes(module_of(architecture)) if is_own_network(architecture) else {}


def read_card(location: str) -> ModelCard:
    """Return what a checkpoint is, without its weights; imports and builds nothing. Raises as `load_checkpoint`."""
    return _read_card(_find_folder(str(location)))


def check_readable(model: nn.Module, card: ModelCard) -> None:
    """Prove that a model which is being trained can be saved and loaded, before the time for it is spent.

    Raises:
        ValueError, UserError: it can't; as `save_checkpoint` and `load_checkpoint`.
    """
    with tempfile.TemporaryDirectory() as aside:
        save_checkpoint(Folder(aside), model, card)


def load_checkpoint(location: str, model: str | None = None) -> tuple[nn.Module, ModelCard]:
    """The model, on the CPU in float32, eval mode, without gradients, and what it is.

    Args:
        location: a folder that `jobs.train` wrote, or its ``checkpoint/``; local or a URI.
        model: the architecture, as the user names it. A folder whose architecture is code (``module:function``) is
            opened only if the user names it, too: a folder that somebody gave must not choose what is imported.

    Raises:
        UserError: missing, a pickle, damaged, from a newer version, or weights that are not what the card says.
            Nothing in the files is ever run.
    """
    folder = _find_folder(str(location))
    card = _read_card(folder)
    source = f"{folder}/{WEIGHTS}"
    check_named_by_user(card, model, f"{folder}/{CARD}")
    try:
        network = card.build()
    except UserError as error:
        raise UserError(f"{folder}/{CARD}: {error}") from None
    state = network.state_dict()
    try:
        # What such a model takes, and room for names: a file that claims to be one cannot fill the memory.
        content = folder.read_bytes(WEIGHTS, sum(t.numel() * t.element_size() for t in state.values()) + MOST_HEADER)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error})") from None
    tensors = read_tensors(content, source)  # before the hash: "is a pickle" and "truncated" say more
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise UserError(f"{source}: SHA-256 is {found[:16]}…, but {CARD} says {card.sha256[:16]}…: damaged or replaced")
    check_tensors(tensors, state, source)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{source}: {name} holds values that are not finite (did the training diverge?)")
        if name.startswith("normalize.") and not torch.allclose(tensor, state[name], rtol=DRIFT, atol=0):
            raise UserError(f"{source}: {name} differs from what {CARD} says")
    network.load_state_dict(tensors | _constants(state))
    return network.eval().requires_grad_(False), card


def check_named_by_user(card: ModelCard, model: str | None, source: str) -> None:
    """Raise UserError if a card names code that the user has not named, or another network than the user has."""
    if model is None and is_own_network(card.architecture):
        raise UserError(
            f"{source}: its network is code of yours, {card.architecture}; it is imported only if you name it, too: "
            f"--model {card.architecture}"
        )
    if model is not None and model != card.architecture:
        raise UserError(f"{source}: its network is {card.architecture}, not --model {model}")


def _constants(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What no training changes: the normalisation layer's mean and std."""
    return {name: tensor for name, tensor in state.items() if name.startswith("normalize.")}


def _find_folder(location: str) -> Folder:
    folder = Folder(location, option="CHECKPOINT")
    try:
        return _place_of_card(folder, location)
    except OSError as error:  # a store that is down, or shut to us
        raise UserError(f"CHECKPOINT {location}: cannot be read ({error})") from None


def _place_of_card(folder: Folder, location: str) -> Folder:
    if folder.is_file(""):
        if location.lower().endswith(PICKLE_ENDINGS):
            raise UserError(
                f"CHECKPOINT {location}: is a pickle; refused, not run (allowed: a folder with {CARD}, as "
                "import makes of it)"
            )
        raise UserError(f"CHECKPOINT {location}: is a file; allowed: the folder that holds {CARD} and {WEIGHTS}")
    for place in (folder, folder / SUBFOLDER):
        if place.is_file(CARD):
            return place
    for place in (folder, folder / SUBFOLDER):
        pickles = [name for name in place.names() if name.lower().endswith(PICKLE_ENDINGS)]
        if pickles:
            raise UserError(f"CHECKPOINT {location}: no {CARD}; {pickles[0]} is a pickle; refused, not run")
    raise UserError(f"CHECKPOINT {location}: no {CARD} there, nor in {SUBFOLDER}/")


def _read_card(folder: Folder) -> ModelCard:
    source = f"{folder}/{CARD}"
    try:
        values = folder.read_json(CARD)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{source}: not the description of a model")
    version = values.get("schema_version")
    if type(version) is not int or version < 1:  # true is an int, too
        raise UserError(f"{source}: schema_version = {version!r}; allowed: 1 to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise UserError(f"{source}: schema_version = {version}: written by a newer version of this package; update it")
    try:
        return TypeAdapter(ModelCard).validate_python(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "values"
        raise UserError(f"{source}: {where}: {problem['msg'].removeprefix('Value error, ').lower()}") from None
