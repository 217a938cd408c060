"""Reports and p_A files as artefacts of MLflow runs, so that nobody has to fetch certificates to see p_A."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from acr_ray.cli.session import RunOptions
from acr_ray.formats.files import BEST_CSV, CLASSES_CSV, P_A, PAGE, RUN, SUMMARY, TABLE_CSV, TABLE_LATEX, TABLE_MARKDOWN
from acr_ray.formats.metrics import Metric, MetricKey
from acr_ray.reporting import write_report
from acr_ray.reporting.classes import QUANTILES
from acr_ray.reporting.distribution import Distribution
from acr_ray.storage import Folder, amend
from acr_ray.tracking import Tracker
from acr_ray.tracking.runs import metric_name, numbers
from acr_ray.tracking.view import NOTE

REPORT = (PAGE, TABLE_MARKDOWN, TABLE_CSV, TABLE_LATEX, CLASSES_CSV, SUMMARY)


def page_files(folder: Folder) -> list[str]:
    """List the files of a report: the page first, then tables, then its figures."""
    optional = [BEST_CSV] if folder.is_file(BEST_CSV) else []
    return [*REPORT, *optional, *(n for ending in (".png", ".svg", ".pdf") for n in folder.names(ending))]


def log_page(tracker: Tracker, sources: Sequence[tuple[str, str]], radii: Sequence[float]) -> None:
    """Log the page and figures of these sources under ``report/``; does nothing if tracking is off."""
    if not tracker.ok:
        return
    with TemporaryDirectory() as temporary:
        folder = Folder(temporary)
        write_report(list(sources), folder, radii=radii)
        tracker.files(folder, page_files(folder), "report")
        tracker.tags({NOTE: folder.read_text(TABLE_MARKDOWN)})


def log_comparison(options: RunOptions, out: Folder) -> None:
    """Log a report as an MLflow run: page, tables and figures, and a nested run for each source.

    The nested ones carry the metrics under the same names as certifications do, so that the UI's table and its
    comparison view show them side by side; of these the parent has ACR and hard share only, by source. The same report
    again updates these runs; the folder remembers them.
    """
    tracker = options.open_tracker(out)
    if tracker.uri is None:
        return
    summary, record = out.read_json(SUMMARY), out.read_json(RUN)
    names = [source["name"] for source in summary["sources"]]
    sources = [*summary["sources"], *filter(None, [summary["constant"]])]
    settings = {
        source["name"]: {key: source[key] for key in ("sigma", "n", "alpha", "incomplete")} for source in sources
    }
    about = {"sources": settings, "radii": summary["radii"], "baseline": summary["baseline"], "uri": tracker.uri}
    known = record.get("mlflow_runs", {}) if record.get("mlflow_report") == about else {}
    runs = {"": tracker.start("report", options.run_name or " vs ".join(names), known.get(""))}
    tracker.params({"sources": names, "radii": summary["radii"], "baseline": summary["baseline"]})
    for source in sources:
        name, values = source["name"], _values(source)
        tracker.metrics({f"{key}/{metric_name(name)}": values[key] for key in ("acr", "hard_share") if key in values})
        nested = tracker.beside()
        runs[name] = nested.start("source", name, known.get(name), {"mlflow.parentRunId": str(tracker.run_id)})
        nested.params(settings[name])
        nested.metrics(values)
        nested.finish()
    tracker.files(out, page_files(out))
    tracker.tags({NOTE: out.read_text(TABLE_MARKDOWN)})
    tracker.finish()
    amend(out, record, mlflow_report=about, mlflow_runs={key: run for key, run in runs.items() if run})


def p_a_quantiles(distribution: Distribution) -> dict[str, float]:
    """Return the quantiles of p_A as metrics, ``p_a_quantile.0.5``, …; without those that are not known."""
    found = {}
    for q in QUANTILES:
        # The smallest p_A that at least this share of the images does not exceed; unknown ones lie lowest.
        unknown = distribution.total - distribution.weight.sum()
        reached = np.flatnonzero(unknown + np.cumsum(distribution.weight) >= q * distribution.total - 1e-9)
        if reached.size and unknown < q * distribution.total - 1e-9:
            found[MetricKey(Metric.P_A_QUANTILE, q).tracked] = float(distribution.p[reached[0]])
    return found


def log_sample_p_a(tracker: Tracker, out: Folder) -> None:
    """Log the p_A files of a training run, each with its histogram, as artefacts under ``p_a/``."""
    if not tracker.ok:
        return
    from acr_ray.reporting.sample_p_a import p_a_histogram  # with it comes matplotlib, which takes a second

    files = [name for name in (out / P_A).names(".parquet")]
    tracker.files(out / P_A, files, P_A)
    with TemporaryDirectory() as temporary:
        pictures = Folder(temporary)
        for name in files:
            stem = name.removesuffix(".parquet")
            title = f"training samples, {stem.replace('_', ' ')}"
            pictures.write_bytes(f"{stem}.png", p_a_histogram((out / P_A).read_bytes(name), title))
        tracker.files(pictures, pictures.names(".png"), P_A)


def _values(source: dict[str, Any]) -> dict[str, float]:
    keys = ("acr", "hard_share", "certified_accuracy", "abstained", "images")
    worst = source["worst_class"] or {}
    of_class = {f"worst_class.{key}": worst[key] for key in ("accuracy_at_0", "hard_share") if key in worst}
    found = numbers({key: source[key] for key in keys}) | of_class
    return {key: value for key, value in found.items() if value is not None}
