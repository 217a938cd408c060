"""Training methods: each an object that turns a batch into a loss."""

from __future__ import annotations

from collections.abc import Callable

from acr_ray.settings.recipe import Recipe
from acr_ray.training.methods.base import Batch, Method, MethodLoss, Passes
from acr_ray.training.methods.catrs import Catrs
from acr_ray.training.methods.consistency import Consistency
from acr_ray.training.methods.gaussian import Gaussian
from acr_ray.training.methods.macer import Macer
from acr_ray.training.methods.own import load_own
from acr_ray.training.methods.smoothadv import SmoothAdv
from acr_ray.training.methods.smoothmix import SmoothMix
from acr_ray.training.methods.stability import Stability

__all__ = ["Batch", "Method", "MethodLoss", "Passes", "build_method"]

_BUILT_IN: dict[str, Callable[[Recipe], Method]] = {
    "gaussian": lambda recipe: Gaussian(),
    "smoothadv": lambda recipe: SmoothAdv(recipe.method),
    "consistency": lambda recipe: Consistency(recipe.method),
    "macer": lambda recipe: Macer(recipe.method, recipe.training.milestones),
    "smoothmix": lambda recipe: SmoothMix(recipe.method),
    "catrs": lambda recipe: Catrs(recipe.method),
    "stability": lambda recipe: Stability(recipe.method),
}


def build_method(recipe: Recipe) -> Method:
    """The method that a recipe names. Raises UserError where a user's own class can't be used."""
    make = _BUILT_IN.get(recipe.method.name)
    return make(recipe) if make else load_own(recipe.method)
