"""What every job that computes needs: a results folder, MLflow and Ray."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acr_ray.preflight.reach import check_reachable, explained
from acr_ray.settings.errors import UserError
from acr_ray.storage import Folder, amend, claim
from acr_ray.storage.node_checks import shared_memory_problem
from acr_ray.storage.run_record import look
from acr_ray.storage.summaries import SUMMARY, read_summary
from acr_ray.tracking import Tracker, default_uri, in_job_copy, quieten
from jobs._private_ray import alone


def add_result_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="where results go: a path, or a URI such as s3://… [required]")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow [default: MLFLOW_TRACKING_URI, else ./mlflow.db]")
    parser.add_argument(
        "--experiment", metavar="NAME", help="MLflow experiment [default: MLFLOW_EXPERIMENT_NAME, else acr-ray]"
    )
    parser.add_argument("--no-tracking", action="store_true", help="log nothing to MLflow")
    parser.add_argument("--run-name", metavar="TEXT", help="name of the MLflow run [default: made from the settings]")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    add_result_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="start anew where DIR holds another run")
    parser.add_argument("--verbose", action="store_true", help="show what Ray and its workers log")


def out_folder(options: argparse.Namespace) -> Folder:
    """Where results go. Raises UserError where they would be lost."""
    if not options.out:
        raise UserError("--out: missing; give the folder for results (a path, or a URI such as s3://bucket/run)")
    if "://" not in options.out and in_job_copy(Path(options.out).expanduser().absolute()):
        raise UserError(
            f"--out {options.out}: lies in the copy of the working directory that Ray makes for a job and deletes "
            "afterwards; give an absolute path on storage that all nodes see, or a URI"
        )
    return Folder(options.out)


def open_tracker(options: argparse.Namespace, out: Folder) -> Tracker:
    quieten()
    uri = None if options.no_tracking else tracking_uri(options, out)
    return Tracker(uri, lambda text: print(text, flush=True), experiment=options.experiment)


@dataclass
class Begun:
    """A run that owns its folder and is open in MLflow.

    Attributes:
        record: what ``run.json`` says.
        done: an earlier process has computed everything; only MLflow has not been told yet.
    """

    out: Folder
    record: dict[str, Any]
    tracker: Tracker
    done: bool

    def end(self) -> None:
        """Close the MLflow run; the folder remembers whether MLflow has everything."""
        self.tracker.finish()
        amend(self.out, self.record, tracked=self.tracker.ok, mlflow_run_id=self.tracker.run_id)


def begin(
    options: argparse.Namespace, out: Folder, job: str, identity: dict[str, Any], owned: tuple[str, ...], name: str,
    tags: dict[str, str] | None = None, ready: Callable[[], None] = lambda: None,
) -> Begun | None:  # fmt: skip
    """Make the folder this run's and open it in MLflow. None where everything is done already.

    Args:
        ready: raises UserError where the work could not be done; called where there is some, before anything is made.
    """
    record = look(out, job, identity, overwrite=options.overwrite, owned=owned)
    done = record is not None and out.is_file(SUMMARY)
    if done:
        read_summary(out, job)
        if record.get("tracked"):
            return None
    else:
        out.prove_writable()
        ready()
    record = claim(out, job, identity, overwrite=options.overwrite, owned=owned)
    tracker = open_tracker(options, out)
    tracker.start(job, options.run_name or name, record.get("mlflow_run_id"), tags or {})
    if tracker.run_id:
        record = amend(out, record, mlflow_run_id=tracker.run_id)
    return Begun(out, record, tracker, done)


def tracking_uri(options: argparse.Namespace, out: Folder) -> str:
    return options.tracking_uri or default_uri(out)


def connect(verbose: bool = False) -> None:
    """Join the Ray cluster of RAY_ADDRESS (a job's own included), or start a private one for this process."""
    import ray

    if ray.is_initialized():
        return
    if problem := shared_memory_problem():
        raise UserError(problem)
    logging.getLogger("ray").setLevel(logging.INFO if verbose else logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # Ray puts a handler of its own in place of ours: the process would abort instead of closing what is open.
    on_sigterm = signal.getsignal(signal.SIGTERM)
    options: dict = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.WARNING}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_reachable(address)
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError) as error:
            raise explained(address, error) from error
    else:
        with alone():
            ray.init(address="local", include_dashboard=False, **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)
