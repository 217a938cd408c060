"""A user's own training method, named in the recipe as ``module:Class``: no fork, no registration."""

from __future__ import annotations

from acr_ray.settings import UserError
from acr_ray.settings.methods import OwnSettings
from acr_ray.settings.own_code import load_named
from acr_ray.training.methods.base import Method


def load_own(settings: OwnSettings) -> Method:
    """The class that ``module:Class`` names, made with the recipe's options.

    The module is looked for where Python looks, and in the working directory. The class needs a method
    ``loss(model, batch)`` that gives a `MethodLoss`; see `Batch` for what it can use.

    Raises:
        UserError: the module or class can't be imported, has no ``loss``, or does not take these options.
    """
    where = f"method.name = {settings.name}"
    found = load_named(settings.name, where, "class")
    if not callable(getattr(found, "loss", None)):
        raise UserError(f"{where}: the class has no method loss(model, batch)")
    try:
        return found(**settings.options)
    except TypeError as error:
        raise UserError(
            f"method.options = {settings.options}: {settings.name} can't be made with them ({error})"
        ) from error
