"""Train, tune and certify image classifiers by randomized smoothing, and say how robust they really are.

From Python: `certify`, `train`, `compare`, `load`; see docs/python.md. They are loaded when they are first used:
``import acr_ray`` loads neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

#: Names of this package that live elsewhere, by the module that holds them.
_ELSEWHERE = {
    "certify": "acr_ray.api.certifying",
    "train": "acr_ray.api.training",
    "compare": "acr_ray.api.comparing",
    "load": "acr_ray.api.loading",
    "SmoothedClassifier": "acr_ray.smoothing.classifier",
    "UserError": "acr_ray.settings.errors",
    "CommandFailed": "acr_ray.cli.exits",
}
__all__ = ["__version__", *_ELSEWHERE]  # noqa: PLE0604 - names of `__getattr__`


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ELSEWHERE})
