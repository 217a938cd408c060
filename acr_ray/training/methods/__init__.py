"""Training methods: each an object that turns a batch into a loss."""

from acr_ray.settings.recipe import Recipe
from acr_ray.training.methods.base import Batch, Method, MethodLoss
from acr_ray.training.methods.gaussian import Gaussian

__all__ = ["Batch", "Method", "MethodLoss", "build_method"]


def build_method(recipe: Recipe) -> Method:
    """The method that a recipe names."""
    return {"gaussian": Gaussian}[recipe.method.name]()
