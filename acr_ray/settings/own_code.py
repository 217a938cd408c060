"""A user's own code, named ``module:name`` on the command line or in a recipe: no fork, no registration."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from acr_ray.settings.errors import UserError

#: What such a name looks like: an importable module, a colon, and a name in it.
OWN_NAME = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
#: Stands for the module of what only the user's own process holds, such as a notebook's class: ``python:Name``.
PYTHON = "python"


def is_own(name: str) -> bool:
    """Return whether a name is of the kind ``module:name``."""
    return re.fullmatch(OWN_NAME, name) is not None


def module_of(name: str) -> str:
    """Return the module of ``module:name``."""
    return name.partition(":")[0]


def load_named(name: str, where: str, kind: str = "function") -> Callable[..., Any]:
    """Return the class or function that ``module:name`` names; its module is run.

    The module is looked for where Python looks, and in the working directory.

    Args:
        name: ``module:name``.
        where: what named it, for messages, such as ``method.name = my_loss:MyLoss``.
        kind: what it should name, for messages.

    Raises:
        UserError: the module can't be imported, has no such name, or what it names can't be called.
    """
    module_name, _, wanted = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's file may fail in any way while it is run
        raise UserError(
            f"{where}: module {module_name} cannot be imported ({type(error).__name__}: {error}); it must be in the "
            f"working directory {os.getcwd()} or installed"
        ) from error
    found = getattr(module, wanted, None)
    if not callable(found) or (kind == "class" and not isinstance(found, type)):
        raise UserError(f"{where}: {getattr(module, '__file__', None) or module_name} has no {kind} {wanted}")
    return found
