"""The one place that talks to MLflow. A server that can't be reached never stops a run or loses a result."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

from acr_ray.storage import Folder
from acr_ray.tracking.advice import advice
from acr_ray.tracking.backlog import Backlog, Refused, is_refusal
from acr_ray.tracking.experiment import open_experiment
from acr_ray.tracking.files import local_copy
from acr_ray.tracking.names import PARAM, TAG, fit_key, fit_keys, shortened
from acr_ray.tracking.quiet import quieten
from acr_ray.tracking.registering import register
from acr_ray.tracking.view import NOTE, run_note, run_tags

MODEL_TAG = "acr_ray.model_id"  # on a training run: its logged model


def _later(method: Callable) -> Callable:
    """Turn a method into a call that can wait, for it only tells MLflow something."""

    @wraps(method)
    def call(self: Tracker, *arguments: Any, **options: Any) -> None:
        if self.uri is not None:
            # Without a run there is nothing to log to; of all else a refused call concerns only itself.
            self._backlog.later(partial(method, self, *arguments, **options), essential=method.__name__ == "_open")

    return call


def _now(method: Callable) -> Callable:
    """Turn a method into a call that is made now or not at all: None if MLflow can't be reached."""

    @wraps(method)
    def call(self: Tracker, *arguments: Any, **options: Any) -> Any:
        return None if self.uri is None else self._backlog.now(partial(method, self, *arguments, **options))

    return call


class Tracker:
    """A run in MLflow, or nothing if tracking is off or MLflow can't be reached.

    No method raises. Where MLflow fails, that is said in one line; parameters, metrics and tags are kept and logged
    once it answers again, in their order and with their own times; `wait` gives it time to come back. What is still
    missing at the end is told by `ok`: jobs take what they log from files that they keep anyway, so that the same
    command can log it later.

    Args:
        uri: tracking URI, or None for no tracking.
        say: prints a line.
        patience: seconds that `wait` waits for a server that has answered before.
        experiment: name of the experiment; see `experiment.open_experiment`.
    """

    def __init__(
        self,
        uri: str | None,
        say: Callable[[str], None] = print,
        patience: float = 30.0,
        experiment: str | None = None,
    ) -> None:
        self.uri, self.complete, self._say, self._patience = uri, True, say, patience
        self.experiment = experiment
        self.run_id: str | None = None
        self._model_id: str | None = None  # that the run is about
        self._data: tuple[str, str] | None = None  # name and digest of the images that it used
        self._client: Any = None
        self._backlog = Backlog(self._lost, self._found, self._set_aside)

    def beside(self, say: Callable[[str], None] = lambda text: None) -> Tracker:
        """Return a tracker of another run in the same experiment; of none if this one's MLflow can't be reached."""
        return Tracker(self.uri if self.ok else None, say, self._patience, self.experiment)

    @property
    def ok(self) -> bool:
        """Whether MLflow has all that it was told so far; False if tracking is off."""
        return self.uri is not None and self._backlog.empty and self.complete

    @property
    def behind(self) -> bool:
        """Whether MLflow lacks something that it was told; False if tracking is off."""
        return self.uri is not None and not self.ok

    @property
    def failure(self) -> str | None:
        """Why the last call failed; None if it did not."""
        return self._backlog.failure

    @property
    def _server(self) -> str:
        """The tracking URI, for what is called only if tracking is on."""
        assert self.uri is not None
        return self.uri

    def _lost(self, reason: str) -> None:
        self._say(
            f"warning: MLflow at {self.uri} can't be used ({reason}); {advice(self._server, reason)}; "
            "continuing without it. All results are in --out; what is missing is logged once it answers, by this job "
            "or by the same command again"
        )

    def _found(self) -> None:
        self._say(f"MLflow at {self.uri} answers again; what it has missed so far is logged")

    def _set_aside(self, reason: str) -> None:
        self._say(
            f"warning: MLflow at {self.uri} refuses {reason}; {advice(self._server, reason, refused=True)}; all else "
            "is logged, and all results are in --out"
        )

    def wait(self) -> bool:
        """Before what has to be logged now: see that MLflow is there, or give it time to come back, once.

        Returns:
            whether it is there.
        """
        if self.uri is None or (self.run_id is None and not self._backlog.clear()):
            return False
        self._ping()
        patience, self._patience = self._patience, 0.0
        return self._backlog.empty or self._backlog.clear(patience)

    @_later
    def _ping(self) -> None:
        self._client.get_run(self.run_id)

    def start(self, job: str, name: str, run_id: str | None = None, tags: dict[str, str] | None = None) -> str | None:
        """Open a run, or resume ``run_id`` if the store has it. Returns its id, None if MLflow is away."""
        self._open(job, name, run_id, tags or {})
        return self.run_id

    @_later
    def _open(self, job: str, name: str, run_id: str | None, tags: dict[str, str]) -> None:
        from mlflow.exceptions import MlflowException

        quieten()  # again: importing MLflow sets its own log level
        self._client, experiment_id = open_experiment(self._server, self.experiment)
        if run_id is not None:
            try:
                if self._client.get_run(run_id).info.lifecycle_stage == "active":
                    self._client.update_run(run_id, status="RUNNING")
                    self.run_id = run_id
                    return
                self._say(f"the MLflow run {run_id} was deleted; logging to a new one")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        tags = {fit_key(key): shortened(value, TAG) for key, value in (run_tags(job, name) | tags).items()}
        made: str = self._client.create_run(experiment_id, tags=tags).info.run_id
        self.run_id = made
        if note := run_note(job, made):
            self._client.set_tag(made, NOTE, note)

    @_later
    def params(self, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params
        new = [Param(key, shortened(value, PARAM)) for key, value in fit_keys(values).items() if key not in known]
        self._log("params", new, 100)

    @_later
    def tags(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self._client.set_tag(self.run_id, fit_key(key), shortened(value, TAG))

    def metrics(self, values: dict[str, float], step: int = 0, linked: bool = False) -> None:
        """Log numbers, with the time of this call whenever MLflow takes them (which then knows a repeated one).

        Args:
            linked: they are about the model and the images that the run has named: MLflow's page of the model shows
                them, too.
        """
        self._metrics(values, step, int(time.time() * 1000), linked)

    @_later
    def _metrics(self, values: dict[str, float], step: int, milliseconds: int, linked: bool = False) -> None:
        from mlflow.entities import Metric

        about: dict[str, Any] = {}
        if linked and self._model_id:
            about = {"model_id": self._model_id, "run_id": self.run_id}
            about |= dict(zip(("dataset_name", "dataset_digest"), self._data or (), strict=False))
        entities, no_numbers = [], []
        for key, value in fit_keys(values).items():
            try:
                entities.append(Metric(key, float(value), milliseconds, step, **about))
            except (TypeError, ValueError):
                no_numbers.append(f"{key} (no number: {shortened(repr(value), 100)})")
        self._log("metrics", entities, 1000, no_numbers)

    def _log(self, kind: str, entities: list[Any], most: int, refused: Sequence[str] = ()) -> None:
        """Log in batches; of a batch that is refused each entry by itself, so that only what is wrong is missing."""
        refused = list(refused)
        for at in range(0, len(entities), most):
            part = entities[at : at + most]
            try:
                self._client.log_batch(self.run_id, **{kind: part})
                continue
            except Exception as error:
                if not is_refusal(error):
                    raise
            for one in part:
                try:
                    self._client.log_batch(self.run_id, **{kind: [one]})
                except Exception as error:
                    if not is_refusal(error):
                        raise
                    refused.append(f"{one.key} ({shortened(' '.join(str(error).split()), 300)})")
        if refused:
            raise Refused(f"the {kind} {', '.join(refused)}")

    @_now
    def last_step(self, metric: str) -> int:
        """Return the last step that the store has of a metric; -1 if it has none."""
        return max((m.step for m in self._client.get_metric_history(self.run_id, metric)), default=-1)

    @_later
    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Name the images that a run used. MLflow's digest has 36 characters: the whole one is in the profile."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        whole = json.dumps({"sha256": digest})
        data = Dataset(name=name, digest=digest[:36], source_type="local", source=source, profile=whole)
        tag, self._data = InputTag("mlflow.data.context", context), (name, digest[:36])
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(data, [tag])])

    @_now
    def files(self, folder: Folder, names: list[str], to: str | None = None) -> None:
        """Log files of a results folder as artefacts; names that are absent are passed over."""
        for name in names:
            if folder.is_file(name):
                with local_copy(folder, name) as path:
                    self._client.log_artifact(self.run_id, str(path), to)

    @_now
    def model(self, checkpoint: Folder, files: tuple[str, ...]) -> None:
        """Log a checkpoint as an MLflow model that is loaded without unpickling (our code by name, safetensors)."""
        from acr_ray.tracking.model import log_smoothed_model

        assert self.run_id is not None  # nothing is logged before a run is open
        model_id = log_smoothed_model(self._server, self.run_id, checkpoint, files)
        self._client.set_tag(self.run_id, MODEL_TAG, model_id)

    @_now
    def register(self, name: str) -> str:
        """Make the run's logged model a version of a registered model, once. Returns the version."""
        assert self.run_id is not None  # nothing is registered before a run is open
        return register(self._client, name, self.run_id, self._client.get_run(self.run_id).data.tags.get(MODEL_TAG))

    @_later
    def uses_model_of(self, run_id: str | None) -> None:
        """Say that this run is about the model of another run, if that has logged one."""
        from mlflow.entities import LoggedModelInput
        from mlflow.exceptions import MlflowException

        try:
            model_id = self._client.get_run(run_id).data.tags.get(MODEL_TAG) if run_id else None
        except MlflowException:
            return  # the training run is in another store
        if model_id:
            self._model_id = model_id
            self._client.log_inputs(self.run_id, models=[LoggedModelInput(model_id)])

    @contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Meanwhile MLflow's own monitor logs this machine's processors, memory, disks, network and GPUs."""
        monitor = self._start_monitor()
        try:
            yield
        finally:
            if monitor is not None:
                monitor.finish()

    @_now
    def _start_monitor(self) -> Any:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        for name in ("mlflow.system_metrics", "mlflow.utils.autologging_utils"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a lost server is said once, by us
        monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=self.uri)
        monitor.start()
        return monitor

    @_later
    def finish(self, status: str = "FINISHED") -> None:
        self._client.set_terminated(self.run_id, status)

    @_later
    def delete(self) -> None:
        """Mark the run as deleted."""
        self._client.delete_run(self.run_id)
