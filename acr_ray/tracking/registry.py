"""MLflow's model registry: which version a name means today."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from acr_ray.settings import UserError
from acr_ray.tracking.quiet import quieten

PREFIX = "models:/"
ALLOWED = "models:/NAME@ALIAS or models:/NAME/VERSION"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        name, version: in the registry.
        run_id: the run that made it; its checkpoint is the model.
        alias: by which it was found; "" if by its number.
    """

    name: str
    version: str
    run_id: str
    alias: str = ""


def is_registered(location: str) -> bool:
    """Return whether a model is named as one of the registry."""
    return location.startswith(PREFIX)


def has_alias(location: str) -> bool:
    """Return whether a name of the registry may mean another version tomorrow."""
    return is_registered(location) and "@" in location


def find_version(location: str, tracking_uri: str) -> RegisteredVersion:
    """Ask the registry.

    Args:
        location: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        tracking_uri: of MLflow, whose registry is asked.

    Raises:
        UserError: it is spelt otherwise, the registry does not have it or can't be reached, or no run made it.
    """
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([0-9]+))", location)
    if match is None:
        raise UserError(f"{location}: not a name of MLflow's registry; allowed: {ALLOWED}")
    name, alias, number = match.groups()
    quieten()
    store = tracking_uri.removeprefix("sqlite:///")
    if store != tracking_uri and not os.path.exists(store):  # MLflow would make one, only to find nothing in it
        raise UserError(
            f"{location}: no store is at MLflow {tracking_uri}; give --tracking-uri, or set MLFLOW_TRACKING_URI"
        )
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{location}: not in the registry of MLflow {tracking_uri} ({reason})") from None
    if not found.run_id:
        raise UserError(f"{location}: version {found.version} was made by no run, so its checkpoint is not known")
    return RegisteredVersion(name, str(found.version), found.run_id, alias or "")
