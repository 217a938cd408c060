"""What a training and a certification run look like in MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from acr_ray.formats.files import CHECKPOINT, MODEL_CARD, MODEL_WEIGHTS, RUN
from acr_ray.settings import UserError
from acr_ray.storage import Folder
from acr_ray.storage.inside import check_name
from acr_ray.storage.run_record import read_run
from acr_ray.tracking.names import fit_key
from acr_ray.tracking.quiet import quieten
from acr_ray.tracking.registry import find_version, is_registered
from acr_ray.tracking.tracker import Tracker

MOST_ARTEFACTS = 10_000
CHECKPOINT_FILES = (MODEL_WEIGHTS, MODEL_CARD)


class EpochLog:
    """Logs each epoch's numbers once, also if an earlier driver has logged some of them."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._last = tracker.last_step("loss")

    def __call__(self, record: dict[str, Any]) -> None:
        if self._last is None and self._tracker.ok:  # MLflow was away; what lies in between is logged at the end
            self._last = self._tracker.last_step("loss")
        if self._last is None or record["epoch"] <= self._last:
            return
        self._tracker.metrics(scalars(record), record["epoch"])
        self._last = record["epoch"]


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of an epoch's record; one metric for each entry of lists (``attack_active.1`` …) and of objects."""
    metrics: dict[str, float] = {}
    for name, value in record.items():
        if name == "epoch" or name.endswith("histogram"):
            continue
        if isinstance(value, list):
            metrics |= {f"{name}.{i}": v for i, v in enumerate(value, 1)}
        elif isinstance(value, dict):
            metrics |= {f"{name}.{inner}": v for inner, v in value.items() if isinstance(v, (int, float))}
        elif isinstance(value, (int, float)):
            metrics[name] = value
    return metrics


def numbers(summary: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a certification's summary as metrics: ``acr``, ``certified_accuracy.0.5``, …"""
    metrics: dict[str, float] = {}
    for name, value in summary.items():
        if isinstance(value, dict):
            metrics |= {f"{name}.{inner}": v for inner, v in _inner_numbers(value).items()}
        elif isinstance(value, float) or name in ("images", "evaluations"):
            metrics[name] = value
    return metrics


def _inner_numbers(values: dict[str, Any]) -> dict[str, float]:
    """Return the numbers in nested objects by their joined names, such as ``two-class.acr``; no flags, no lists."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": v for inner, v in _inner_numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def metric_name(text: str) -> str:
    """Return text as a part of a metric's name, between slashes."""
    return fit_key(text.replace("/", "_"))


def resolve_checkpoint(location: str, tracking_uri: str) -> tuple[str, str | None]:
    """Return a local path or URI of a checkpoint, and the MLflow run it comes from.

    Args:
        location: a train job's folder, its ``checkpoint/``, ``runs:/RUN_ID``, or a name of the registry, see
            `registry.find_version`.

    Raises:
        UserError: the run can't be found, or has no checkpoint.
    """
    if is_registered(location):
        location = f"runs:/{find_version(location, tracking_uri).run_id}"
    if location.startswith("runs:/"):
        return download(location, CHECKPOINT, tracking_uri), location.removeprefix("runs:/").split("/")[0]
    for folder in (location, location.rstrip("/").rsplit("/", 1)[0] if "/" in location else "."):
        run_folder = Folder(folder, option="CHECKPOINT")
        if run_folder.is_file(RUN):
            return location, read_run(run_folder).get("mlflow_run_id")
    return location, None


def download(run: str, artifact: str, tracking_uri: str) -> str:
    """An artefact folder of ``runs:/RUN_ID`` (all of them: ``""``) as a local path. Raises UserError if none is."""
    quieten()
    store = tracking_uri.removeprefix("sqlite:///")
    if store != tracking_uri and not os.path.exists(store):  # MLflow would make one, only to find nothing in it
        raise UserError(f"{run}: no store is at MLflow {tracking_uri}; give --tracking-uri, or set MLFLOW_TRACKING_URI")
    import mlflow
    from mlflow.exceptions import MlflowException

    run_id = run.removeprefix("runs:/").split("/")[0]
    try:
        _check_listing(mlflow.MlflowClient(tracking_uri), run_id, artifact, f"{run}: MLflow {tracking_uri}")
        return mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=artifact, tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{run}: no {artifact or 'artefacts'} of this run at MLflow {tracking_uri} ({reason})"
        ) from error


def _check_listing(client: Any, run_id: str, folder: str, where: str) -> None:
    """What a server lists stays inside, ends, and is of a size that a run has. Raises UserError if it doesn't."""
    folders, listed = [folder], 0
    while folders:
        inner = folders.pop()
        for entry in client.list_artifacts(run_id, inner or None):
            name, listed = check_name(entry.path, where), listed + 1
            if (inner and not name.startswith(f"{inner}/")) or listed > MOST_ARTEFACTS or name.count("/") > 20:
                raise UserError(f"{where}: lists {name[:80]!r} below {inner!r}, or too much; refused")
            folders += [name] if entry.is_dir else []


def with_run(tracker: Tracker, work: Callable[[], None]) -> None:
    """Do the work, with the machine's load on record; a run that breaks is marked so."""
    try:
        with tracker.system_metrics():
            work()
        tracker.wait()
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED")
        raise
