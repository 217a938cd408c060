"""What a training run is. Symbols as in the paper: σ, m, E_t, p_t, T, ε."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from acr_ray.settings.base import Settings, Words, digest, field_of
from acr_ray.settings.datasets import DATASETS, OWN_DATASET, check_dataset, needs_root, source_of
from acr_ray.settings.errors import UserError
from acr_ray.settings.image_options import (
    CROP_TEXT,
    DECODE_TEXT,
    RESIZE_TEXT,
    SIZE_TEXT,
    Augmentation,
    ImageOptions,
    Resize,
    Size,
)
from acr_ray.settings.methods import GaussianSettings, MethodSettings

Dataset = Annotated[str, AfterValidator(check_dataset), Words("|".join((*DATASETS, OWN_DATASET)))]
Share = Annotated[float, Field(ge=0, le=1)]


class DataSettings(Settings):
    """Which images."""

    dataset: Dataset = Field(description="digits is embedded; the others are read from data.root")
    root: str | None = Field(
        None,
        description="what docs/data.md says: cifar-10-batches-py, train/ and val/ class folders, a Parquet file, …",
    )
    class_map: str | None = Field(None, description="file that names class folders, YAML or JSON: {folder: class}")
    loader_workers: int = Field(0, ge=0, le=256, description="processes that read and decode images, per worker")
    decode: Literal["cpu", "gpu"] = Field("cpu", description=DECODE_TEXT)
    size: Size | None = Field(None, description=SIZE_TEXT)
    resize: Resize = Field("default", description=RESIZE_TEXT)
    crop: bool = Field(True, description=CROP_TEXT)
    augmentation: Augmentation = Field(
        "default",
        description="of the training view; default: crop_flip for CIFAR, resized_crop for folders, none for others",
    )
    mean: tuple[float, ...] = Field(
        (), description="per channel, inputs in [0, 1]; empty: the data set's own, or what its training split gives"
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((), description="likewise")

    @property
    def options(self) -> ImageOptions:
        """How images become what the network sees."""
        return ImageOptions(self.size, self.resize, self.crop, self.augmentation, self.mean, self.std)


class ModelSettings(Settings):
    """Which network."""

    architecture: str = Field(
        description="digits_resnet, cifar_resnet20, cifar_resnet110, a torchvision classifier, timm:NAME, or your own "
        "module:function"
    )


class TrainingSettings(Settings):
    """The loop."""

    sigma: float = Field(gt=0, le=100, description="standard deviation of the noise, inputs in [0, 1]")
    epochs: int = Field(ge=1, le=100_000, description="passes over as many samples as the training set has")
    batch_size: int = Field(256, ge=1, le=1_000_000, description="noise draws of one optimizer step, all workers")
    m: int = Field(1, ge=1, le=1024, description="noisy copies of an input; a step sees batch_size/m inputs")
    e_t: int = Field(0, ge=0, description="E_t: the epoch from which discard, reweigh and attack act")
    learning_rate: float = Field(0.1, gt=0, le=1000, description="of SGD")
    milestones: tuple[int, ...] = Field((), description="epochs at which the learning rate is multiplied by lr_decay")
    lr_decay: float = Field(0.1, gt=0, le=1, description="factor at each milestone")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="of SGD")
    channels_last: bool = Field(True, description="memory format of images and weights")
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = Field(
        "float32",
        description="of the network's passes: bfloat16 and float16 by autocast, tf32 on GPUs; weights, losses and "
        "noise stay float32",
    )
    compile: bool = Field(
        False, description="torch.compile the network; the attack then uses a few fixed sizes, on GPUs one CUDA graph"
    )
    accumulate: int = Field(1, ge=1, le=10_000, description="parts that a worker passes its share of a step in")
    gradient_compression: Literal["none", "float16"] = Field(
        "none", description="float16: workers exchange gradients in half the bytes"
    )
    sync_batch_norm: bool = Field(False, description="batch norm over all workers' rows of a step; GPUs only")
    warmup_epochs: int = Field(0, ge=0, le=100_000, description="epochs over which the learning rate grows to its own")
    replacement: bool = Field(
        False, description="draw samples with replacement from epoch E_t on, also if none are discarded or reweighed"
    )
    scale_learning_rate: bool = Field(
        False, description="multiply learning_rate by batch_size/256 (Goyal et al. 2017, linear scaling)"
    )
    noise: Literal["float", "lattice"] = Field(
        "float", description="lattice: rounded to the images' grid, the same on every machine, as certification's"
    )
    init: str | None = Field(
        None,
        description="weights to begin with: a checkpoint of this architecture; for other classes the last layer is new",
    )
    init_learning_rate: float | None = Field(
        None, gt=0, le=1000, description="with init, in place of learning_rate; none: a tenth of it"
    )

    @property
    def first_learning_rate(self) -> float:
        """The learning rate before warm-up, milestones and scaling; trained weights get a lower one."""
        if self.init is None:
            return self.learning_rate
        return self.learning_rate / 10 if self.init_learning_rate is None else self.init_learning_rate


class DiscardSettings(Settings):
    """Part 1 of the paper's recipe: hard samples leave the training set at epoch E_t."""

    enabled: bool = Field(False, description="keep only samples with p_A >= p_t from epoch E_t on")
    p_t: Share = Field(0.5, description="threshold on p_A of a training sample")
    draws: int = Field(100, ge=1, le=1_000_000, description="noise draws of the p_A estimate")
    view: Literal["training", "evaluation"] = Field("training", description="view of an image that p_A is estimated on")
    checkpoint: str | None = Field(
        None, description="model that estimates p_A (at E_t = 0 it, or a p_a_file, is needed); none: the one trained"
    )
    p_a_file: str | None = Field(None, description="estimates made before: p_a/epoch_K.parquet of a run")
    any_sigma: bool = Field(False, description="take a checkpoint or p_a_file of another sigma than training.sigma")


class ReweighSettings(Settings):
    """Part 2: samples are drawn in proportion to their approximate certified radius."""

    enabled: bool = Field(False, description="draw samples by their approximate certified radius from epoch E_t on")
    every: int = Field(10, ge=1, description="epochs between p_A estimates")
    draws: int = Field(16, ge=1, le=1_000_000, description="noise draws of the p_A estimate")
    p_min: float = Field(0.75, ge=0, le=1, description="p_A is clipped to [p_min, 1], so nobody's weight is 0")
    alpha: float = Field(0.1, gt=0, lt=1, description="error probability of the bound behind the weight")
    view: Literal["training", "evaluation"] = Field("training", description="view of an image that p_A is estimated on")


class AttackSettings(Settings):
    """Part 3: PGD on the noise, until the sample is misclassified."""

    enabled: bool = Field(False, description="attack the noise draws from epoch E_t on")
    steps: int = Field(3, ge=1, le=1000, description="T: the most PGD steps")
    epsilon: float = Field(0.25, gt=0, le=1000, description="ε: step size in input units")
    norm: Literal["l2", "linf"] = Field("l2", description="l2: ε·g/‖g‖₂; linf: ε·sign(g)/√d")
    buckets: int | None = Field(
        None,
        ge=0,
        le=64,
        description="fixed batch sizes that rows still attacked are padded to; 0: no padding; none: 8 if compiled",
    )


# Fields without a say in the trained weights; what the class map says is in the data's hash.
NOT_DECIDING = ("name", "data.root", "data.class_map", "data.loader_workers")
# Fields that came later: at their defaults a run is what it was before there were any.
LATER = (
    "data.decode",
    "data.size",
    "data.resize",
    "data.crop",
    "data.augmentation",
    "data.mean",
    "data.std",
    "training.noise",
    "training.init",
    "training.init_learning_rate",
)
# Fields that are paths or URIs.
PATHS = ("data.root", "data.class_map", "training.init", "discard.checkpoint", "discard.p_a_file", "method.target")


def absolute_path(location: str) -> str:
    """Return a local path made absolute; a URI as it is."""
    return location if "://" in location else str(Path(location).expanduser().absolute())


class Recipe(Settings):
    """A whole training run but for its seed, its hardware and where its results go."""

    name: str = Field(min_length=1, max_length=200, description="shown in tables and MLflow")
    data: DataSettings
    model: ModelSettings
    training: TrainingSettings
    method: MethodSettings = GaussianSettings()
    discard: DiscardSettings = DiscardSettings()
    reweigh: ReweighSettings = ReweighSettings()
    attack: AttackSettings = AttackSettings()

    @property
    def changes_at_e_t(self) -> bool:
        """Whether anything changes at epoch E_t."""
        return self.discard.enabled or self.reweigh.enabled or self.attack.enabled or self.training.replacement

    @property
    def inputs_per_step(self) -> int:
        """Inputs of one optimizer step over all workers, batch_size/m."""
        return self.training.batch_size // self.training.m

    def identity(self, contents: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what decides the trained weights: all but names and where things lie.

        Args:
            contents: of what the recipe names, to stand in place of its path: ``{path: "sha256:…"}``, and for a
                user's own method ``{name: {file: "sha256:…"}}``.
        """
        known = contents or {}
        deciding = {k: v for k, v in self.flat().items() if k not in NOT_DECIDING and not self._as_before(k, v)}
        deciding |= {k: known[v] for k, v in deciding.items() if k in PATHS and v in known}
        return deciding | {f"method.source {file}": sha for file, sha in known.get(self.method.name, {}).items()}

    def _as_before(self, dotted: str, value: Any) -> bool:
        return dotted in LATER and bool(value == field_of(self, dotted).default)

    def with_absolute_paths(self) -> Self:
        """Return the same, with local paths made absolute: workers have another working directory."""
        given = {k: absolute_path(v) for k, v in self.flat().items() if k in PATHS and v is not None}
        return self.change(given, self.name)

    @property
    def sha256(self) -> str:
        return digest(self.identity())

    def change(self, changes: Mapping[str, Any], source: str = "settings") -> Self:
        """As for all settings; another ``method.name`` brings that method's own fields, at their defaults."""
        name = changes.get("method.name", self.method.name)
        if name == self.method.name:
            return super().change(changes, source)
        other = self.build({**self.model_dump(), "method": {"name": name}}, source)
        return other.change({field: value for field, value in changes.items() if field != "method.name"}, source)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := list(self._clashes()):
            raise ValueError("; ".join(problems))
        return self

    def _clashes(self) -> Iterator[str]:
        """Yield all fields that do not go together, so that a user mends them at once."""
        t = self.training
        if self.changes_at_e_t and t.e_t >= t.epochs:
            yield (
                f"training.e_t = {t.e_t}: past the last epoch; allowed: 0 to {t.epochs - 1} (training.epochs - 1), or "
                "--scale-epochs in place of --training.epochs, which moves all epochs"
            )
        if t.batch_size % t.m:
            yield f"training.m = {t.m}: must divide training.batch_size = {t.batch_size}"
        if getattr(self.method, "deferred", False) and not t.milestones:
            yield "method.deferred = True: waits for the first of training.milestones, and there are none"
        if t.init is None and t.init_learning_rate is not None:
            yield f"training.init_learning_rate = {t.init_learning_rate}: belongs to training.init, which is none"
        if t.warmup_epochs >= t.epochs:
            yield f"training.warmup_epochs = {t.warmup_epochs}: as long as the run; allowed: 0 to {t.epochs - 1}"
        if len(self.data.mean) != len(self.data.std):
            yield f"data.mean = {self.data.mean}, data.std = {self.data.std}: give both, one pair a channel"
        if list(t.milestones) != sorted(set(t.milestones)) or any(e < 1 for e in t.milestones):
            yield f"training.milestones = {t.milestones}: must be increasing epochs >= 1"

    def scaled(self, epochs: int) -> Self:
        """Return the same schedule in so many epochs: E_t, milestones, warm-ups and intervals in proportion, rounded.

        Raises UserError if the schedule does not fit into so few.
        """
        ratio = epochs / self.training.epochs
        changes: dict[str, Any] = {"training.epochs": epochs}
        for field, value in self.flat().items():
            if field == "training.milestones":
                changes[field] = tuple(dict.fromkeys(max(1, round(epoch * ratio)) for epoch in value))
            elif field == "training.e_t":
                changes[field] = min(round(value * ratio), epochs - 1)
            elif field in ("training.warmup_epochs", "method.double_from") and value:
                changes[field] = round(value * ratio)
            elif field in ("reweigh.every", "method.warmup"):
                changes[field] = max(1, round(value * ratio))
        return self.change(changes, self.name)

    def check_complete(self) -> None:
        """Raise UserError if something that only the user can give is missing."""
        given = (self.discard.checkpoint, self.discard.p_a_file)
        if None not in given:
            raise UserError(f"{self.name}: discard.checkpoint and discard.p_a_file exclude each other")
        if self.discard.enabled and self.training.e_t == 0 and given == (None, None):
            raise UserError(
                f"{self.name}: discard.checkpoint = none: this recipe discards at epoch 0, before anything is "
                "trained; allowed: the checkpoint of a trained model (--discard.checkpoint DIR), a p_A file "
                "(--discard.p_a_file FILE), a later training.e_t, or --discard.enabled false"
            )
        if needs_root(self.data.dataset) and self.data.root is None:
            raise UserError(
                f"{self.name}: data.root = none: {self.data.dataset} is read from a folder (--data.root PATH): "
                f"{source_of(self.data.dataset).root}"
            )
