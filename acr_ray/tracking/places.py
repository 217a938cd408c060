"""Where the store lies that nobody named."""

from __future__ import annotations

import os
from pathlib import Path

from acr_ray.storage import Folder


def default_uri(out: Folder) -> str:
    """``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working directory.

    A Ray job's working directory is a copy that goes away with the cluster: there the store lies beside ``out``.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return os.environ["MLFLOW_TRACKING_URI"]
    temporary = in_job_copy(Path.cwd()) and out.is_local
    return f"sqlite:///{(out.local_path.parent if temporary else Path.cwd()) / 'mlflow.db'}"


def in_job_copy(path: Path) -> bool:
    """Return whether a path lies in the copy of a working directory that Ray makes for a job."""
    return "runtime_resources" in path.parts and "working_dir_files" in path.parts
