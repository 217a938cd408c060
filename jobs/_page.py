"""A report as artefacts of an MLflow run, so that nobody has to fetch certificates to see the distribution of p_A."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory

from acr_ray.reporting import write_report
from acr_ray.storage import Folder
from acr_ray.tracking import Tracker

NOTE = "mlflow.note.content"  # the description that the UI shows first on a run's page
PAGE = ("report.html", "table.md", "table.csv", "table.tex", "summary.json")


def page_files(folder: Folder) -> list[str]:
    """The files of a report: the page first, then tables, then its figures."""
    return [*PAGE, *(n for ending in (".png", ".svg", ".pdf") for n in folder.names(ending))]


def log_page(tracker: Tracker, sources: Sequence[tuple[str, str]], radii: Sequence[float]) -> None:
    """Log the page and figures of these sources under ``report/``; does nothing where tracking is off."""
    if not tracker.ok:
        return
    with TemporaryDirectory() as temporary:
        folder = Folder(temporary)
        write_report(list(sources), folder, radii=radii)
        tracker.files(folder, page_files(folder), "report")
        tracker.tags({NOTE: folder.read_text("table.md")})
