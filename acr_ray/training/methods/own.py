"""A user's own training method, named in the recipe as ``module:Class``: no fork, no registration."""

from __future__ import annotations

import importlib
import os
import sys

from acr_ray.settings import UserError
from acr_ray.settings.methods import OwnSettings
from acr_ray.training.methods.base import Method


def load_own(settings: OwnSettings) -> Method:
    """The class that ``module:Class`` names, made with the recipe's options.

    The module is looked for where Python looks, and in the working directory. The class needs a method
    ``loss(model, batch)`` that gives a `MethodLoss`; see `Batch` for what it can use.

    Raises:
        UserError: the module or class can't be imported, has no ``loss``, or does not take these options.
    """
    module_name, _, class_name = settings.name.partition(":")
    where = f"method.name = {settings.name}"
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's file may fail in any way while it is run
        raise UserError(
            f"{where}: module {module_name} cannot be imported ({type(error).__name__}: {error}); it must be in the "
            f"working directory {os.getcwd()} or installed"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise UserError(f"{where}: {module.__file__ or module_name} has no class {class_name}")
    if not callable(getattr(found, "loss", None)):
        raise UserError(f"{where}: the class has no method loss(model, batch)")
    try:
        return found(**settings.options)
    except TypeError as error:
        raise UserError(
            f"method.options = {settings.options}: {settings.name} can't be made with them ({error})"
        ) from error
