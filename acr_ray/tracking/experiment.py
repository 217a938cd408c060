"""The experiment that runs are logged under."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acr_ray.tracking.view import NOTE, VIEW, experiment_note, experiment_tags

EXPERIMENT = "acr-ray"


class Unusable(Exception):
    """Asking again will not help: the experiment was deleted, or there is none of that id."""

    error_code = "INVALID_PARAMETER_VALUE"


def open_experiment(uri: str, name: str | None = None) -> tuple[Any, str]:
    """MLflow's client, and the id of the experiment, which is made if it is absent.

    Args:
        uri: tracking URI.
        name: of the experiment; None: ``MLFLOW_EXPERIMENT_NAME``, else ``MLFLOW_EXPERIMENT_ID``, else ``acr-ray``.

    Raises:
        Unusable: it was deleted.
    """
    import mlflow

    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    given_id = None if name else os.environ.get("MLFLOW_EXPERIMENT_ID")
    with _first_one_creates(uri):
        client = mlflow.MlflowClient(tracking_uri=uri)
        name = name or EXPERIMENT
        experiment = client.get_experiment(given_id) if given_id else client.get_experiment_by_name(name)
        if experiment is None:
            made = client.create_experiment(name, artifact_location=_artifacts_beside(uri))
            _describe(client, made)
            return client, made
        elif name == EXPERIMENT and VIEW not in experiment.tags and experiment.lifecycle_stage == "active":
            _describe(client, experiment.experiment_id)  # of an earlier version
    if experiment.lifecycle_stage == "deleted":
        raise Unusable(f"the experiment {experiment.name} (id {experiment.experiment_id}) was deleted in MLflow")
    return client, experiment.experiment_id


def _describe(client: Any, experiment_id: str) -> None:
    for key, value in {**experiment_tags(), NOTE: experiment_note(experiment_id)}.items():
        client.set_experiment_tag(experiment_id, key, value)


@contextmanager
def _first_one_creates(uri: str) -> Iterator[None]:
    """Let one process at a time create a SQLite store: several at once were seen to break it for good."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _artifacts_beside(uri: str) -> str | None:
    """Artefacts of a local store go beside its database, wherever the process runs; servers decide for themselves."""
    if uri.startswith("sqlite:///"):
        return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlruns").as_uri()
    return None
