"""`acr_ray.train`: a training on Ray, by a recipe and a few changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from acr_ray.api.given import checked_mapping, name_of, run_options
from acr_ray.cli.commands import train as command
from acr_ray.cli.results import TrainResult
from acr_ray.settings import Recipe, UserError, load_recipe
from acr_ray.smoothing.pixels import checked_whole
from acr_ray.training.workers import CheckpointPolicy, Workers


def train(
    recipe: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    dataset: Any = None,
    root: str | None = None,
    model: Any = None,
    changes: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    workers: int | Workers = 1,
    seed: int = 0,
    policy: CheckpointPolicy | None = None,
    tracking_uri: str | None = None,
    run_name: str | None = None,
    overwrite: bool = False,
    verbose: bool = False,
) -> TrainResult:
    """Train a classifier on Ray, or resume the run that ``out`` holds. A private Ray is started if there is none.

    Args:
        recipe: a recipe's name (``acr-ray train --list``), the path of its file, or an `acr_ray.settings.Recipe`.
        out: folder for results, a path or URI.
        dataset: a data set's name, or a function of yours that can be imported; None: the recipe's.
        root: where it is read from.
        model: an architecture's name, or a function of yours that can be imported; None: the recipe's.
        changes: other fields of the recipe, such as ``{"training.sigma": 0.5}``.
        epochs: train so many, with the whole schedule moved in proportion; None: the recipe's.
        workers: DDP workers, each with one CPU; or `acr_ray.training.workers.Workers`.
        seed: of weights, order, views and noise; >= 0.
        policy: of checkpoints; None: its defaults.
        tracking_uri, run_name, overwrite, verbose: as in `acr_ray.certify`.

    Raises:
        UserError: an argument, data, cluster or folder does not allow it; one line.
        CommandFailed: training broke off; the same call resumes it.
    """
    options = run_options(out, tracking_uri, run_name, overwrite, verbose)
    if not isinstance(recipe, Recipe):
        if not isinstance(recipe, (str, os.PathLike)):
            raise UserError(f"recipe: a {type(recipe).__name__}; give a name, the path of a file, or a Recipe")
        recipe = load_recipe(os.fspath(recipe))
    named = {
        "data.dataset": _importable("dataset", dataset),
        "data.root": root,
        "model.architecture": _importable("model", model),
    }
    given = {key: value for key, value in named.items() if value is not None}
    given |= checked_mapping(changes or {}, "changes")
    try:
        if epochs is not None:
            recipe = recipe.scaled(checked_whole("epochs", epochs))
        used = workers if isinstance(workers, Workers) else Workers(checked_whole("workers", workers))
        checked_whole("seed", seed, 0)
    except ValueError as error:
        raise UserError(str(error)) from None
    return command.run(recipe.change(given, recipe.name), options, workers=used, seed=seed, policy=policy)


def _importable(what: str, given: Any) -> str | None:
    if given is None:
        return None
    found = name_of(given)
    if found is None:
        raise UserError(
            f"{what}: a {type(given).__name__} of this process; workers need a name, or a function in a file that can "
            "be imported (module:function)"
        )
    return found
