"""Compare certificates: the distribution of p_A, certified accuracy, and what ACR hides."""

from __future__ import annotations

import argparse

from acr_ray.reporting import Assumptions, comparison_table, write_report
from acr_ray.storage import Folder
from acr_ray.tracking.runs import download, metric_name
from acr_ray.tracking.runs import numbers as metrics_of
from jobs._main import entry
from jobs._page import NOTE, page_files
from jobs._report_options import parse, per_source
from jobs._run import open_tracker, out_folder, tracking_uri


def main(argv: list[str]) -> None:
    """Reads the sources, leaves the report in ``--out`` and prints its table."""
    options = parse(argv, __doc__)
    out = out_folder(options)
    uri = tracking_uri(options, out)
    report = write_report(
        options.source,
        out,
        radii=options.radii,
        constant=options.constant,
        baseline=options.baseline,
        assumptions=Assumptions(
            sigma=per_source("--sigma", options.sigma, float),
            n=per_source("--n", options.n, int),
            alpha=per_source("--alpha", options.alpha, float),
        ),
        formats=options.formats,
        layout=options.layout,
        resolve_run=lambda run: f"{download(run, '', uri)}",
    )
    track(options, out)
    print(comparison_table(report))
    for comparison, verdict in zip(report.comparisons, report.verdicts, strict=True):
        print(f"\n{comparison.name}: {verdict}")
    print(f"\nreport: {out}/report.html")


def track(options: argparse.Namespace, out: Folder) -> None:
    """The comparison as an MLflow run: each source's numbers as metrics, its page and figures as artefacts."""
    tracker = open_tracker(options, out)
    summary = out.read_json("summary.json")
    names = [source["name"] for source in summary["sources"]]
    tracker.start("report", options.run_name or " vs ".join(names))
    tracker.params({"sources": names, "radii": summary["radii"], "baseline": summary["baseline"]})
    for source in [*summary["sources"], *filter(None, [summary["constant"]])]:
        chosen = ("acr", "hard_share", "certified_accuracy")
        tracker.metrics(
            {f"{key}/{metric_name(source['name'])}": v for key, v in metrics_of({k: source[k] for k in chosen}).items()}
        )
    tracker.files(out, page_files(out))
    tracker.tags({NOTE: out.read_text("table.md")})
    tracker.finish()


if __name__ == "__main__":
    entry(main)
