"""What a training method is: one frozen class for each, told apart by its name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from acr_ray.settings.base import Settings
from acr_ray.settings.own_code import OWN_NAME, is_own

NAME = "gaussian, smoothadv, consistency, macer, smoothmix, catrs, stability, or your own class as module:Class"
OWN = "module:Class"  # the tag of a user's own method in the union

Weight = Annotated[float, Field(ge=0, le=1000)]
Radius = Annotated[float, Field(gt=0, le=1000)]
Steps = Annotated[int, Field(ge=1, le=1000)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]


class GaussianSettings(Settings):
    """Cross entropy on noisy inputs."""

    name: Literal["gaussian"] = Field("gaussian", description=NAME)


class SmoothAdvSettings(Settings):
    """Cross entropy on noisy copies of an adversarial input."""

    name: Literal["smoothadv"] = Field("smoothadv", description=NAME)
    attack: Literal["pgd", "ddn"] = Field("pgd", description="attack on the input")
    epsilon: Radius = Field(1.0, description="ε: l2 radius of the attack, inputs in [0, 1]")
    steps: Steps = Field(10, description="T: steps of the attack; a PGD step has length 2ε/T")
    warmup: Epochs = Field(10, description="epochs over which ε grows linearly to its full size")
    gamma: float = Field(0.05, gt=0, lt=1, description="share by which DDN changes its norm in a step")


class ConsistencySettings(Settings):
    """Cross entropy and agreement of the noisy copies."""

    name: Literal["consistency"] = Field("consistency", description=NAME)
    weight: Weight = Field(10.0, description="λ: weight of the divergence from the mean prediction")
    eta: Weight = Field(0.5, description="η: weight of the mean prediction's entropy")


class MacerSettings(Settings):
    """Cross entropy of the mean prediction and a hinge on its certified radius."""

    name: Literal["macer"] = Field("macer", description=NAME)
    weight: Weight = Field(12.0, description="λ: weight of the robustness loss")
    gamma: Radius = Field(8.0, description="γ: where the hinge on Φ⁻¹(p₁) - Φ⁻¹(p₂) ends")
    beta: Radius = Field(16.0, description="β: inverse temperature of the soft predictions behind the radius")
    deferred: bool = Field(False, description="λ is 0 until the first of training.milestones")


class SmoothMixSettings(Settings):
    """Cross entropy, and mixes of an input and its adversary that should be less certain."""

    name: Literal["smoothmix"] = Field("smoothmix", description=NAME)
    eta: Weight = Field(5.0, description="η: weight of the loss on mixed inputs")
    steps: Steps = Field(4, description="T: steps of the attack")
    step_size: Radius = Field(1.0, description="α: length of a step of the attack")
    one_step: bool = Field(False, description="train the clean side on the adversary after one step")
    warmup: Epochs = Field(10, description="epochs over which η (and the one-step adversary) grow to full size")


class CatrsSettings(Settings):
    """Cross entropy on as many copies as the network is confident of, and worst noise for the confident inputs."""

    name: Literal["catrs"] = Field("catrs", description=NAME)
    weight: Weight = Field(1.0, description="λ: weight of the worst-noise loss")
    epsilon: Radius = Field(1.0, description="ε: l2 radius of the attack on the noise")
    steps: Steps = Field(4, description="T: steps of the attack; a step has length 2ε/T")
    double_from: int | None = Field(None, ge=0, description="epoch from which ε is doubled")
    target: str | None = Field(None, description="checkpoint whose smoothed prediction is the target; none: the label")
    target_sigma: float = Field(0.25, gt=0, le=100, description="noise of the target's smoothed prediction")
    target_draws: int = Field(16, ge=1, le=100_000, description="noise draws of the target's smoothed prediction")
    confidence: Literal["own", "target"] = Field("own", description="whose share of right answers draws K")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.confidence == "target" and self.target is None:
            raise ValueError("method.confidence = target: needs method.target, a checkpoint")
        return self


class StabilitySettings(Settings):
    """Cross entropy on the clean input, and noisy predictions like the clean one."""

    name: Literal["stability"] = Field("stability", description=NAME)
    weight: Weight = Field(2.0, description="λ: weight of the stability loss")


class OwnSettings(Settings):
    """A user's own class, see acr_ray.training.methods.own."""

    name: str = Field(pattern=f"^{OWN_NAME}$", max_length=200, description=NAME)
    options: dict[str, Any] = Field({}, description="arguments of the class, as JSON")


BUILT_IN: dict[str, type[Settings]] = {
    "gaussian": GaussianSettings,
    "smoothadv": SmoothAdvSettings,
    "consistency": ConsistencySettings,
    "macer": MacerSettings,
    "smoothmix": SmoothMixSettings,
    "catrs": CatrsSettings,
    "stability": StabilitySettings,
}


def _kind(values: Any) -> str | None:
    """Return the tag of a method's settings, given as values or as an object; None if the name means nothing."""
    name = values.get("name", "gaussian") if isinstance(values, dict) else getattr(values, "name", None)
    if not isinstance(name, str):
        return None
    return name if name in BUILT_IN else OWN if is_own(name) else None


MethodSettings = Annotated[
    Annotated[GaussianSettings, Tag("gaussian")]
    | Annotated[SmoothAdvSettings, Tag("smoothadv")]
    | Annotated[ConsistencySettings, Tag("consistency")]
    | Annotated[MacerSettings, Tag("macer")]
    | Annotated[SmoothMixSettings, Tag("smoothmix")]
    | Annotated[CatrsSettings, Tag("catrs")]
    | Annotated[StabilitySettings, Tag("stability")]
    | Annotated[OwnSettings, Tag(OWN)],
    Discriminator(_kind, custom_error_type="value_error", custom_error_context={"error": f"allowed: {NAME}"}),
]
