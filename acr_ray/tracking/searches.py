"""What a search looks like in MLflow: a parent run, and nested ones for its trials and their trunks."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from acr_ray.formats.files import SUMMARY, TRACKED, TRIALS_TABLE, TRUNK, TRUNKS
from acr_ray.formats.states import TrialStatus
from acr_ray.formats.tables import FIELDS, TRIALS_VERSION
from acr_ray.settings import UserError
from acr_ray.settings.documents import check
from acr_ray.storage import Folder
from acr_ray.storage.tables import check_table_version, table_metadata
from acr_ray.tracking.backlog import AGAIN
from acr_ray.tracking.tracker import Tracker

OVER = (TrialStatus.FINISHED, TrialStatus.STOPPED, TrialStatus.FAILED)
NUMBERS = ("epochs", "forward_passes", "backward_passes", "validation_passes", "seconds")


class SearchLog:
    """Logs each trial once, when it ends; `finish` adds the trunks and what could not be logged before.

    Parameters of a trial are the fields of the space alone, and its metrics single numbers: what the UI's parallel
    coordinates draw.

    Args:
        tracker: the search's own run.
        out: the search's folder.
        metrics: names of the numbers that trials report.
    """

    def __init__(self, tracker: Tracker, out: Folder, metrics: list[str]) -> None:
        self._tracker, self._out, self._metrics, self._finishing = tracker, out, metrics, False
        self._known: dict[str, str] = _known(out) if tracker.uri and out.is_file(TRACKED) else {}
        self._again = 0.0  # MLflow is not asked before, after it has failed

    def __call__(self, point: dict[str, Any], report: dict[str, Any]) -> None:
        """A report of a trial, as Ray Tune hands it on."""
        if report["status"] in OVER:
            self._trial(report["trial"], report["status"], point, {**report, "epochs": report["epoch"]})

    def finish(self, table: str = TRIALS_TABLE, trunks: str = TRUNKS) -> None:
        """Log what is missing, from the files of a search that is over."""
        self._finishing = True
        if not self._tracker.ok or not self._out.is_file(table):
            return
        where = f"{self._out}/{table}"
        try:
            rows = pq.read_table(io.BytesIO(self._out.read_bytes(table)))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{where}: cannot be read ({error}); --overwrite starts anew") from None
        check_table_version(rows, TRIALS_VERSION, where)
        fields = check(list[str], table_metadata(rows, FIELDS, where), f"{where}: its {FIELDS}")
        if unknown := set(fields) - set(rows.column_names):
            raise UserError(f"{where}: its {FIELDS} names {min(unknown)[:60]}, which is no column")
        for row in rows.to_pylist():
            self._trial(row["trial"], row["status"], {f: row[f] for f in fields}, row)
        self._best()
        for sha in dict.fromkeys(row["trunk"] for row in rows.to_pylist() if row["trunk"]):
            self._trunk(sha, self._out / trunks / sha)

    def _best(self) -> None:
        """The best trial's numbers are the search's own."""
        summary = self._out.read_json(SUMMARY) if self._out.is_file(SUMMARY) else {}
        best = summary.get("best") if isinstance(summary, dict) else None
        if isinstance(best, dict):
            values = best.get("metrics", {})
            self._tracker.metrics({k: v for k, v in values.items() if k in self._metrics and v is not None})
            self._tracker.tags({"acr_ray.best_trial": str(best.get("trial", ""))})

    def _trial(self, trial: str, status: str, point: dict[str, Any], values: dict[str, Any]) -> None:
        numbers = {name: values.get(name) for name in (*self._metrics, *NUMBERS)}
        numbers = {n: v for n, v in numbers.items() if v is not None and not math.isnan(v)}
        as_planned = status in (TrialStatus.FINISHED, TrialStatus.STOPPED)
        failed = {} if as_planned else {"acr_ray.reason": str(values.get("reason", ""))}
        tags = {
            "acr_ray.trial": trial,
            "acr_ray.status": str(status),
            "acr_ray.trunk": values.get("trunk") or "",
        } | failed
        # Stopped by the scheduler: not to be taken for a result.
        ended = "FAILED" if failed else "KILLED" if status == TrialStatus.STOPPED else "FINISHED"
        epochs = values.get("epochs")
        suffix = f" stopped after {epochs} epochs" if status == TrialStatus.STOPPED else ""
        self._nested("trial", trial, point, numbers, tags, ended, suffix)

    def _trunk(self, sha: str, folder: Folder) -> None:
        if not folder.is_file(TRUNK):
            return
        entries = [folder.read_json(n) for n in folder.names(".json") if n.startswith(("epoch_", "p_a_"))]
        numbers = {name: sum(e[name] for e in entries) for name in ("forward_passes", "backward_passes")}
        numbers["epochs"] = max((e["epoch"] for e in entries), default=0)
        tags = {"acr_ray.trunk": sha}
        self._nested("trunk", sha, folder.read_json(TRUNK), numbers, tags, "FINISHED")

    def _nested(
        self, kind: str, name: str, params: dict, numbers: dict, tags: dict, status: str, suffix: str = ""
    ) -> None:
        if name in self._known or self._tracker.run_id is None:
            return
        if not self._finishing and time.monotonic() < self._again:
            return
        nested = Tracker(self._tracker.uri, lambda text: None, experiment=self._tracker.experiment)
        tags = tags | {"mlflow.parentRunId": self._tracker.run_id}
        nested.start(kind, f"{kind}-{name[:12]}{suffix}", tags=tags)
        nested.params(params)
        nested.metrics(numbers)
        nested.finish(status)
        if nested.ok and nested.run_id is not None:
            self._known[name] = nested.run_id
            self._out.write_json(TRACKED, self._known)
            return
        self._again = time.monotonic() + AGAIN
        if self._finishing:
            self._tracker.complete = False


def _known(out: Folder) -> dict[str, str]:
    """Return what MLflow has already, by trial or trunk. Raises UserError if the file is damaged."""
    return check(dict[str, str], out.read_json(TRACKED), f"{out}/{TRACKED}")
