"""What a run is: frozen, typed settings with ranges, and the named recipes."""

from acr_ray.settings.base import Settings, digest
from acr_ray.settings.certify import CertifySettings
from acr_ray.settings.errors import UserError
from acr_ray.settings.recipe import Recipe
from acr_ray.settings.recipes import RECIPES, load_recipe
from acr_ray.settings.seeds import derive_seed

__all__ = ["RECIPES", "CertifySettings", "Recipe", "Settings", "UserError", "derive_seed", "digest", "load_recipe"]
