"""The one place that talks to MLflow. A server that can't be reached never stops a run or loses a result."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from acr_ray.storage import Folder

EXPERIMENT = "acr-ray"
RUN_TAG = "acr_ray.job"


def quieten() -> None:
    """One short attempt at a call instead of MLflow's four minutes of retries, and no advertisements in the log."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def default_uri(out: Folder) -> str:
    """``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working directory.

    A Ray job's working directory is a copy that goes away with the cluster: there the store lies beside ``out``.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return os.environ["MLFLOW_TRACKING_URI"]
    temporary = in_job_copy(Path.cwd()) and out.is_local
    return f"sqlite:///{(out.local_path.parent if temporary else Path.cwd()) / 'mlflow.db'}"


def in_job_copy(path: Path) -> bool:
    """Whether a path lies in the copy of a working directory that Ray makes for a job."""
    return "runtime_resources" in path.parts and "working_dir_files" in path.parts


def _guarded(method: Callable) -> Callable:
    @wraps(method)
    def call(self: Tracker, *arguments: Any, **options: Any) -> Any:
        if not self.ok:
            return None
        try:
            return method(self, *arguments, **options)
        except Exception as error:  # whatever MLflow, its store or the network throws: the run must go on
            self.ok = False
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._say(
                f"warning: MLflow at {self.uri} can't be used ({reason}); going on without it. All results are in "
                "--out; the same command logs them once it can be reached"
            )
            return None

    return call


class Tracker:
    """A run in MLflow, or nothing where tracking is off or has failed.

    Every method returns at once and changes nothing once a call has failed; that is said in one line, and `ok` tells
    it. Methods take what they log from files that the job keeps anyway, so the same command can log it later.

    Args:
        uri: tracking URI, or None for no tracking.
        say: prints a line.
    """

    def __init__(self, uri: str | None, say: Callable[[str], None] = print) -> None:
        self.uri, self.run_id, self.ok, self._say = uri, None, uri is not None, say
        self._client: Any = None

    @_guarded
    def start(self, job: str, name: str, run_id: str | None = None, tags: dict[str, str] | None = None) -> str | None:
        """Open a run, or go on with ``run_id`` where the store has it. Returns its id."""
        import mlflow
        from mlflow.exceptions import MlflowException

        quieten()  # again: importing MLflow sets its own log level
        from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_SOURCE_NAME

        with _first_one_creates(self.uri):
            self._client = mlflow.MlflowClient(tracking_uri=self.uri)
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(
                EXPERIMENT,
                artifact_location=_artifacts_beside(self.uri),
                tags={"mlflow.experimentKind": "custom_model_development"},  # the UI opens on runs, not on traces
            )  # fmt: skip
        if run_id is not None:
            try:
                self._client.update_run(run_id, status="RUNNING")
                self.run_id = run_id
                return run_id
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        named = {RUN_TAG: job, MLFLOW_RUN_NAME: name, MLFLOW_SOURCE_NAME: f"jobs.{job}", **(tags or {})}
        self.run_id = self._client.create_run(experiment_id, tags=named).info.run_id
        return self.run_id

    @_guarded
    def params(self, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params
        new = [Param(key, str(value)[:500]) for key, value in values.items() if key not in known]
        for at in range(0, len(new), 100):
            self._client.log_batch(self.run_id, params=new[at : at + 100])

    @_guarded
    def tags(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self._client.set_tag(self.run_id, key, value)

    @_guarded
    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self._client.log_batch(self.run_id, [Metric(k, float(v), now, step) for k, v in values.items()])

    @_guarded
    def last_step(self, metric: str) -> int:
        """The last step that the store has of a metric; -1 where it has none."""
        return max((m.step for m in self._client.get_metric_history(self.run_id, metric)), default=-1)

    @_guarded
    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Name the images that a run used."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name=name, digest=digest[:36], source_type="local", source=source)
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(data, [tag])])

    @_guarded
    def files(self, folder: Folder, names: list[str], to: str | None = None) -> None:
        """Log files of a results folder as artefacts; names that are absent are passed over."""
        for name in names:
            if folder.is_file(name):
                with local_copy(folder, name) as path:
                    self._client.log_artifact(self.run_id, str(path), to)

    @_guarded
    def model(self, checkpoint: Folder, files: tuple[str, ...]) -> None:
        """Log a checkpoint as an MLflow model that is loaded without unpickling (models from code, safetensors)."""
        from acr_ray.tracking.model import log_smoothed_model

        log_smoothed_model(self.uri, self.run_id, checkpoint, files)

    @contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Meanwhile MLflow's own monitor logs this machine's processors, memory, disks, network and GPUs."""
        monitor = self._start_monitor()
        try:
            yield
        finally:
            if monitor is not None:
                monitor.finish()

    @_guarded
    def _start_monitor(self) -> Any:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        for name in ("mlflow.system_metrics", "mlflow.utils.autologging_utils"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a lost server is said once, by us
        monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=self.uri)
        monitor.start()
        return monitor

    @_guarded
    def finish(self, status: str = "FINISHED") -> None:
        self._client.set_terminated(self.run_id, status)


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


@contextmanager
def local_copy(folder: Folder, name: str) -> Iterator[Path]:
    """A file of a results folder as a local path."""
    if folder.is_local:
        yield folder.local_path / name
        return
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / Path(name).name
        path.write_bytes(folder.read_bytes(name))
        yield path
