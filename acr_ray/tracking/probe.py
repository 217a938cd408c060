"""Whether MLflow can be reached and lets us log."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

from acr_ray.settings import UserError
from acr_ray.storage import Folder
from acr_ray.tracking.advice import advice
from acr_ray.tracking.tracker import Tracker


def check_mlflow(uri: str) -> str:
    """Make a run with a parameter and an artefact, and delete it again.

    Returns:
        What was done, one line.

    Raises:
        UserError: a step failed; says which, MLflow's answer, and what to do.
    """
    messages: list[str] = []
    tracker = Tracker(uri, messages.append)
    run_id = tracker.start("doctor", "doctor", tags={"acr_ray.check": "deleted again"})
    tracker.params({"user": os.environ.get("USER", "")})
    step = "no run can be made"
    if tracker.ok:
        step = "runs can be made, but no artefact can be stored"
        with TemporaryDirectory() as temporary:
            folder = Folder(temporary)
            folder.write_text("doctor.txt", "can be deleted\n")
            tracker.files(folder, ["doctor.txt"])
    failed = tracker.failure or next(iter(messages), None)
    tracker.delete()
    if failed:
        raise UserError(f"MLflow {uri}: {step} ({failed}); {advice(uri, failed)}")
    return f"{uri}: a run and an artefact were written (run {run_id}, deleted again)"
