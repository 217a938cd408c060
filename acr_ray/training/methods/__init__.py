"""Training methods: each an object that turns a batch into a loss."""

from __future__ import annotations

from acr_ray.settings.methods import (
    CatrsSettings,
    ConsistencySettings,
    GaussianSettings,
    MacerSettings,
    OwnSettings,
    SmoothAdvSettings,
    SmoothMixSettings,
    StabilitySettings,
)
from acr_ray.settings.recipe import Recipe
from acr_ray.training.methods.base import Batch, CountedMethod, Method, MethodLoss, Passes
from acr_ray.training.methods.catrs import Catrs
from acr_ray.training.methods.consistency import Consistency
from acr_ray.training.methods.gaussian import Gaussian
from acr_ray.training.methods.macer import Macer
from acr_ray.training.methods.own import load_own
from acr_ray.training.methods.smoothadv import SmoothAdv
from acr_ray.training.methods.smoothmix import SmoothMix
from acr_ray.training.methods.stability import Stability

__all__ = ["Batch", "CountedMethod", "Method", "MethodLoss", "Passes", "build_method"]


def build_method(recipe: Recipe) -> Method:
    """The method that a recipe names. Raises UserError where a user's own class can't be used."""
    match recipe.method:
        case GaussianSettings():
            return Gaussian()
        case SmoothAdvSettings() as settings:
            return SmoothAdv(settings)
        case ConsistencySettings() as settings:
            return Consistency(settings)
        case MacerSettings() as settings:
            return Macer(settings, recipe.training.milestones)
        case SmoothMixSettings() as settings:
            return SmoothMix(settings)
        case CatrsSettings() as settings:
            return Catrs(settings)
        case StabilitySettings() as settings:
            return Stability(settings)
        case OwnSettings() as settings:
            return load_own(settings)
