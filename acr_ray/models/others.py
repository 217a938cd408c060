"""Networks of timm (``timm:NAME``), and of the user (``module:function``)."""

from __future__ import annotations

import inspect
import re

from torch import nn

from acr_ray.settings import UserError
from acr_ray.settings.own_code import is_own, load_named

TIMM = "timm:"
#: No ``hf-hub:`` and no ``local-dir:``, by which timm would fetch what a file names.
TIMM_NAME = re.compile(r"timm:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")


def is_own_network(architecture: str) -> bool:
    """Return whether an architecture is a function of the user's, ``module:function``."""
    return is_own(architecture) and not architecture.startswith(TIMM)


def timm_network(architecture: str, num_classes: int, channels: int) -> nn.Module:
    """Make a network of timm, with fresh weights.

    Raises:
        UserError: timm is not installed, or has no such network.
    """
    where = f"model.architecture = {architecture[:200]}"
    try:
        import timm
    except ImportError:
        raise UserError(f"{where}: needs timm: pip install 'acr-ray[timm]'") from None
    name = architecture.removeprefix(TIMM)
    if not TIMM_NAME.fullmatch(architecture) or not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:40].partition('.')[0]}*")[:5])
        raise UserError(
            f"{where}: timm {timm.__version__} has no such network" + (f"; it has {near}, …" if near else "")
        )
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels).float()
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"{where}: cannot be made for {num_classes} classes ({error})") from None


def own_network(architecture: str, num_classes: int) -> nn.Module:
    """Call the user's function, with ``num_classes`` if it takes that.

    Raises:
        UserError: it can't be imported, fails, or returns no `nn.Module`.
    """
    where = f"model.architecture = {architecture[:200]}"
    function = load_named(architecture, where)
    try:
        takes = inspect.signature(function).parameters
        given = "num_classes" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())
        network = function(num_classes=num_classes) if given else function()
    except (Exception, SystemExit) as error:  # a user's code may fail in any way
        raise UserError(f"{where}: fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{where}: returns a {type(network).__name__}; expected a torch.nn.Module")
    return network.float()
