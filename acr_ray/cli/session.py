"""What every command that computes needs: a results folder that is its own, and a run in MLflow."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acr_ray.settings.errors import UserError
from acr_ray.storage import Folder, amend, open_run
from acr_ray.storage.run_record import find_run
from acr_ray.storage.summaries import SUMMARY, read_summary
from acr_ray.tracking import Tracker, default_uri, in_job_copy, quieten


@dataclass(frozen=True)
class RunOptions:
    """Where a run's results go, how it is tracked, and how much is printed. Changes nothing of the results.

    Attributes:
        out: the results folder, a path or a URI such as ``s3://bucket/run``.
        tracking_uri: of MLflow; None: MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.
        tracking: False: nothing is logged to MLflow.
        experiment: of MLflow; None: MLFLOW_EXPERIMENT_NAME, else ``acr-ray``.
        run_name: of the MLflow run; None: made from the settings.
        overwrite: start anew if the folder holds another run.
        verbose: show what Ray and its workers log.
        register: name in MLflow's model registry of which the run's model becomes a version; None: of none.
    """

    out: str | None
    tracking_uri: str | None = None
    tracking: bool = True
    experiment: str | None = None
    run_name: str | None = None
    overwrite: bool = False
    verbose: bool = False
    register: str | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> RunOptions:
        """Take the options that `add_result_options` or `add_run_options` has read."""
        return cls(
            out=options.out,
            tracking_uri=options.tracking_uri,
            tracking=not options.no_tracking,
            experiment=options.experiment,
            run_name=options.run_name,
            overwrite=getattr(options, "overwrite", False),
            verbose=getattr(options, "verbose", False),
            register=getattr(options, "register", None),
        )

    def folder(self) -> Folder:
        """Open the results folder. Raises UserError if there is none, or results would be lost in it."""
        if not self.out:
            raise UserError("--out: missing; give the folder for results (a path, or a URI such as s3://bucket/run)")
        if "://" not in self.out and in_job_copy(Path(self.out).expanduser().absolute()):
            raise UserError(
                f"--out {self.out}: lies in the copy of the working directory that Ray makes for a job and deletes "
                "afterwards; give an absolute path on storage that all nodes see, or a URI"
            )
        return Folder(self.out)

    def mlflow_uri(self, out: Folder) -> str:
        """The address of MLflow for results in ``out``, whether or not anything is logged."""
        return self.tracking_uri or default_uri(out)

    def open_tracker(self, out: Folder) -> Tracker:
        """Make a tracker without a run; one that does nothing if nothing is to be logged."""
        quieten()
        uri = self.mlflow_uri(out) if self.tracking else None
        return Tracker(uri, lambda text: print(text, flush=True), experiment=self.experiment)


@dataclass(frozen=True)
class TrackedRun:
    """A run that owns its results folder and is open in MLflow.

    Attributes:
        record: what ``run.json`` says.
        computed: an earlier process has computed everything; only MLflow does not have it yet.
    """

    out: Folder
    record: dict[str, Any]
    tracker: Tracker
    computed: bool

    def remember(self, **more: Any) -> None:
        """Add to what ``run.json`` says, for the calls that resume this run."""
        self.record.update(amend(self.out, self.record, **more))

    def close(self) -> None:
        """Finish the MLflow run; the folder remembers whether MLflow has everything."""
        self.tracker.finish()
        amend(self.out, self.record, tracked=self.tracker.ok, mlflow_run_id=self.tracker.run_id)


def open_tracked_run(
    options: RunOptions,
    out: Folder,
    job: str,
    identity: dict[str, Any],
    owned: tuple[str, ...],
    name: str,
    tags: dict[str, str] | None = None,
    check_room: Callable[[], None] = lambda: None,
) -> TrackedRun | None:
    """Make the folder this run's and open the run in MLflow. None if everything is done already.

    Args:
        job: the command's name, e.g. ``train``.
        identity: everything that decides the run's results, JSON-like.
        owned: names of files and folders that the command writes.
        name: of the MLflow run, unless the user gave one.
        tags: of the MLflow run.
        check_room: raises UserError if the work could not be done; called before anything is made, and only if there
            is work.

    Raises:
        UserError: the folder holds another run, can't be written, or has a damaged summary.
    """
    record = find_run(out, job, identity, overwrite=options.overwrite, owned=owned)
    computed = False
    if record is not None and out.is_file(SUMMARY):
        computed = True
        read_summary(out, job)
        if record.get("tracked"):
            return None
    else:
        out.prove_writable()
        check_room()
    record = open_run(out, job, identity, overwrite=options.overwrite, owned=owned)
    tracker = options.open_tracker(out)
    tracker.start(job, options.run_name or name, record.get("mlflow_run_id"), tags or {})
    if tracker.run_id:
        record = amend(out, record, mlflow_run_id=tracker.run_id)
    return TrackedRun(out, record, tracker, computed)
