"""What a certification run is."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from acr_ray.settings.base import Settings, digest
from acr_ray.settings.image_options import CROP_TEXT, RESIZE_TEXT, SIZE_TEXT, ImageOptions, Resize, Size
from acr_ray.settings.recipe import Dataset

MOST_RADIUS, MOST_RADII = 1000.0, 200  # far beyond what sigma 100 certifies; a bound is computed for each

Radius = Annotated[float, Field(ge=0, le=MOST_RADIUS)]


class CertifySettings(Settings):
    """Cohen et al.'s CERTIFY over a set of images; defaults are the field's."""

    sigma: float = Field(gt=0, le=100, description="standard deviation of the noise; the checkpoint's if not given")
    n0: int = Field(100, ge=1, le=100_000_000, description="noise draws that select the class")
    n: int = Field(100_000, ge=1, le=1_000_000_000, description="fresh noise draws behind the bound")
    alpha: float = Field(0.001, gt=0, lt=1, description="probability that one certificate is wrong")
    radii: tuple[Radius, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), max_length=MOST_RADII, description="radii of the certified accuracies"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of all noise")
    block: int = Field(500, ge=1, le=1_000_000, description="noise draws of one seed and pass; auto: as measured")
    dataset: Dataset = Field(description="images to certify; the checkpoint's data set if not given")
    root: str | None = Field(None, description="folder of the data set")
    class_map: str | None = Field(None, description="file that names class folders, YAML or JSON: {folder: class}")
    size: Size | None = Field(None, description=f"{SIZE_TEXT}; the checkpoint's if not given")
    resize: Resize = Field("default", description=RESIZE_TEXT)
    crop: bool = Field(True, description=CROP_TEXT)
    split: Literal["train", "test"] = Field("test", description="split to certify; ImageNet's val/ is test")
    max_images: int | None = Field(
        None, ge=1, le=10**9, description="only K images: a random choice, the same in every run"
    )
    every: int | None = Field(None, ge=1, le=10**9, description="every K-th image (ImageNet's protocol: 100)")
    image_list: str | None = Field(None, description="file with one stable image name a line")
    device: Literal["cpu", "cuda"] = Field("cpu", description="kind of device; decides the arithmetic certified")
    stopping: Literal["fixed", "radii", "width", "distribution"] = Field(
        "fixed",
        description="fixed: n noise draws an image; radii: until the radii's answers are known; width: see tolerance; "
        "distribution: until the distribution of p_A is known, see band",
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        le=100,
        description="width: stop when n draws could not raise the radius by more; none: 0.012 sigma",
    )
    band: float = Field(
        0.01,
        ge=0.001,
        le=0.5,
        description="distribution: stop when the share of images with p_A >= x is known this well, for every x; "
        "0.01: one point",
    )
    band_upto: float = Field(
        0.98,
        ge=0.5,
        le=0.9999,
        description="distribution: for every x from 0.02 up to this; more of the tail needs more draws",
    )
    stop_when_wrong: bool = Field(False, description="draw no more for an image whose selected class is not its label")
    certificate: Literal["one-class", "two-class"] = Field(
        "one-class",
        description="one-class: the field's radius, of p_A alone; two-class: of p_A and the runner-up's p, which is "
        "larger",
    )
    bound: Literal["clopper-pearson", "randomized"] = Field(
        "clopper-pearson", description="randomized: Clopper-Pearson with a seeded coin for ties, a little tighter"
    )
    noise: Literal["lattice", "float"] = Field(
        "lattice",
        description="lattice: rounded to the images' grid, the same on every machine, and sound in floating point; "
        "float: float32, as the field's. A run that has begun keeps its own",
    )
    grid: int | None = Field(
        None, ge=1, le=16_000, description="steps of the images' grid in a unit, of lattice noise; the data set's"
    )
    dtype: Literal["float32", "tf32", "bfloat16", "float16", "int8"] = Field(
        "float32",
        description="arithmetic of the network; it is the classifier in that arithmetic that is certified. tf32 is "
        "for GPUs, int8 for CPUs",
    )
    calibration: Literal["train", "test"] = Field(
        "train", description="split whose noisy images the int8 network is calibrated on"
    )
    compile: bool = Field(False, description="torch.compile the network")
    pass_rows: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="rows of every forward pass, whichever images they are of; none: an image's blocks have passes of "
        "their own. A run that has begun keeps its own",
    )

    @property
    def rows_of_a_pass(self) -> int:
        """Rows of a forward pass, at most; where images share passes, of every pass."""
        return self.pass_rows or self.block

    def identity(self) -> dict[str, object]:
        """Return what decides the counts (the root may move; radii matter only if they decide when to stop)."""
        # As runs were before these fields came.
        usual = {"size": None, "resize": "default", "crop": True, "certificate": "one-class"}
        usual |= {"noise": "float", "grid": None, "pass_rows": None}
        usual |= {} if self.dtype == "int8" else {"calibration": self.calibration}
        left_out = {"radii", "root", "class_map", "tolerance", "band", "band_upto"}
        left_out |= {k for k, v in usual.items() if getattr(self, k) == v}
        deciding = {k: v for k, v in self.flat().items() if k not in left_out}
        stops_by: dict[str, dict[str, object]] = {
            "radii": {"radii": self.radii},
            "width": {"tolerance": self.radius_tolerance},
            "distribution": {"band": self.band, "band_upto": self.band_upto},
        }
        return deciding | stops_by.get(self.stopping, {})

    @property
    def image_options(self) -> ImageOptions:
        """How images become what the network sees."""
        return ImageOptions(self.size, self.resize, self.crop)

    @property
    def radius_tolerance(self) -> float:
        """Input units. The default loses 0.4 % of ACR and under 0.2 points of certified accuracy on CIFAR-10."""
        return 0.012 * self.sigma if self.tolerance is None else self.tolerance

    @property
    def sha256(self) -> str:
        return digest(self.identity())

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        # n draws that all agree prove p_A > 1/2 only if alpha**(1/n) > 1/2.
        needed = next(n for n in range(1, 1100) if 0.5**n < self.alpha)
        if self.n < needed:
            raise ValueError(
                f"n = {self.n}: too few draws to certify anything at alpha = {self.alpha}; allowed: >= {needed}"
            )
        if any(r < 0 for r in self.radii) or list(self.radii) != sorted(set(self.radii)) or not self.radii:
            raise ValueError(f"radii = {self.radii}: must be increasing numbers >= 0")
        if self.stopping != "fixed" and self.bound != "clopper-pearson":
            raise ValueError(f"bound = {self.bound}: belongs to stopping fixed; {self.stopping} has a bound of its own")
        if self.certificate == "two-class" and self.stopping not in ("fixed", "radii"):
            raise ValueError(
                f"certificate = two-class: not with stopping {self.stopping}; allowed: stopping fixed, radii"
            )
        if self.stop_when_wrong and self.stopping == "distribution":
            raise ValueError(
                "stop_when_wrong: not with stopping distribution, which asks for p_A of every image's label"
            )
        if self.certificate == "two-class" and self.bound != "clopper-pearson":
            raise ValueError(
                f"bound = {self.bound}: belongs to one-class; certificate two-class has a bound of its own"
            )
        if sum(choice is not None for choice in (self.every, self.max_images, self.image_list)) > 1:
            raise ValueError("max_images, every and image_list exclude each other")
        if self.pass_rows is not None and self.noise == "float":
            raise ValueError(f"pass_rows = {self.pass_rows}: belongs to noise lattice")
        if self.grid is not None and self.noise == "float":
            raise ValueError(f"grid = {self.grid}: belongs to noise lattice")
        return self

    @model_validator(mode="after")
    def _arithmetic_fits(self) -> Self:
        if self.dtype == "tf32" and self.device == "cpu":
            raise ValueError("dtype = tf32: is an arithmetic of GPUs (--gpus-per-actor); allowed on a CPU: float32")
        if self.dtype == "int8" and self.device != "cpu":
            raise ValueError(
                "dtype = int8: is an arithmetic of CPUs, torch has no int8 convolutions for GPUs; allowed on a GPU: "
                "bfloat16, float16, tf32, float32"
            )
        if self.dtype == "int8" and self.compile:
            raise ValueError("dtype = int8: is not compiled, its kernels are whole already; leave --compile out")
        if self.calibration != "train" and self.dtype != "int8":
            raise ValueError(f"calibration = {self.calibration}: belongs to dtype int8")
        return self
