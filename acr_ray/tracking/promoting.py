"""MLflow's model registry: an alias moves to a version that passed the gate."""

from __future__ import annotations

from acr_ray.settings import UserError
from acr_ray.tracking.registry import RegisteredVersion

GATE_RUN = "acr_ray.gate_run_id"


def check_alias(alias: str) -> None:
    """Raise UserError if MLflow would not take an alias."""
    import re

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias) or alias == "latest" or re.fullmatch(r"v\d+", alias):
        raise UserError(
            f"--promote {alias}: no alias of a registry; allowed: letters, digits, _ and -, but not latest or v1, v2, …"
        )


def promote(version: RegisteredVersion, alias: str, tracking_uri: str, gate_run: str | None) -> str:
    """Move an alias to a version.

    Args:
        version: in the registry of ``tracking_uri``.
        alias: see `check_alias`.
        gate_run: id of the MLflow run of the gate, kept as a tag of the version; None: there is none.

    Returns:
        One line on what the alias meant before and means now.

    Raises:
        UserError: the registry can't be reached, or does not allow it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)
    try:
        before = client.get_registered_model(version.name).aliases.get(alias)
        if gate_run:
            client.set_model_version_tag(version.name, version.version, GATE_RUN, gate_run)
        client.set_registered_model_alias(version.name, alias, version.version)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--promote {alias}: MLflow {tracking_uri} did not move it ({reason})") from None
    was = f"version {before}" if before else "no version"
    return f"models:/{version.name}@{alias} is version {version.version} now; it was {was}"
