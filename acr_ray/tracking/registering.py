"""A run's model as a version of a registered model."""

from __future__ import annotations

from typing import Any

from acr_ray.formats.files import CHECKPOINT


def register(client: Any, name: str, run_id: str, model_id: str | None) -> str:
    """Make a run's model the next version of a registered model, unless it is one already.

    Args:
        client: MLflow's.
        name: of the registered model, which is made if it is absent.
        run_id: the run that made the model.
        model_id: of its logged model; None: it has none, and the version is its checkpoint.

    Returns:
        The version.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name.replace(chr(39), chr(39) * 2)}'"):
        if version.run_id == run_id:
            return str(version.version)
    source = f"models:/{model_id}" if model_id else f"runs:/{run_id}/{CHECKPOINT}"
    return str(client.create_model_version(name, source, run_id, model_id=model_id).version)
