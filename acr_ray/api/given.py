"""What a Python user gives, as the commands take it: by name if it has one, else as the object that it is.

A function or class that can be imported is as good as its name ``module:function``: a run begun so is the command
line's, and the other way round.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acr_ray.cli.session import RunOptions
from acr_ray.data import ImageSet
from acr_ray.data.own import called, images_of
from acr_ray.settings import UserError
from acr_ray.settings.image_options import ImageOptions
from acr_ray.settings.own_code import PYTHON, is_own


def run_options(
    out: str | os.PathLike[str] | None,
    tracking_uri: str | None,
    run_name: str | None,
    overwrite: bool,
    verbose: bool,
) -> RunOptions:
    """Make the options of a run. A program is tracked only if it, or MLFLOW_TRACKING_URI, says where.

    Raises:
        UserError: no folder for results.
    """
    if out is None or not str(out):
        raise UserError('out: missing; give the folder for results, such as out="runs/mine"')
    return RunOptions(
        os.fspath(out),
        tracking_uri=tracking_uri,
        tracking=bool(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")),
        run_name=run_name,
        overwrite=overwrite,
        verbose=verbose,
    )


def uses_ray(asked: bool | None) -> bool:
    """Whether the work goes to Ray: as asked, else if this process has joined a cluster or RAY_ADDRESS names one."""
    if asked is not None:
        return bool(asked)
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def name_of(given: Any) -> str | None:
    """The name by which a thing is found again: a text, a path, or ``module:function`` of what can be imported."""
    if isinstance(given, (str, Path)):
        return str(given)
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", "")
    if not callable(given) or not module or module == "__main__" or not is_own(f"{module}:{name}"):
        return None
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is given else None


def image_set(
    dataset: Any,
    name: str | None,
    root: str | None,
    split: str,
    options: ImageOptions = ImageOptions(),  # noqa: B008
) -> ImageSet:
    """The images that an object holds.

    Args:
        dataset: an `ImageSet`; (images, labels) or (images, labels, class names) as arrays or tensors; an object with
            ``__len__`` and ``__getitem__`` that gives (image, class number); or a function that returns one of these.
        name: by which its images are known, a part of their names and so of their noise; None: of its class.
        root, split: handed to a function that takes them.
        options: how images become what the network sees.

    Raises:
        UserError: it is something else, or the name is no name.
    """
    if isinstance(dataset, ImageSet):
        if name is not None or options != ImageOptions():
            raise UserError("dataset: an ImageSet has its name and size; leave out name, size, resize and crop")
        return dataset
    named = _name(dataset, name)
    if callable(dataset) and not hasattr(dataset, "__getitem__"):
        return called(dataset, named, root, split, options)
    return images_of(tuple(dataset) if isinstance(dataset, list) else dataset, named, split, options)


def _name(dataset: Any, name: str | None) -> str:
    kind = getattr(dataset, "__name__", type(dataset).__name__)
    arrays = isinstance(dataset, (tuple, list))
    found = name or ("arrays" if arrays else kind if kind.isidentifier() else "data")
    found = found if ":" in found else f"{PYTHON}:{found}"
    if not is_own(found):
        raise UserError(f"name {name}: allowed: a word, or module:function")
    return found


def checked_mapping(given: Any, what: str) -> dict[str, Any]:
    """A mapping as a dictionary. Raises UserError if it is none."""
    if not isinstance(given, Mapping):
        raise UserError(f"{what}: a {type(given).__name__}; give a mapping of names to values")
    return {str(key): value for key, value in given.items()}
