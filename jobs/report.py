"""Compare certificates: the distribution of p_A, certified accuracy, and what ACR hides."""

from __future__ import annotations

from jobs._main import entry
from jobs._report_options import parse, per_source


def main(argv: list[str]) -> None:
    """Reads the sources, leaves the report in ``--out`` and prints its table."""
    options = parse(argv, __doc__)
    # Here, so that --help and a mistake need not wait for them.
    from acr_ray.reporting import Assumptions, comparison_table, write_report
    from acr_ray.tracking.runs import download
    from jobs._page import log_comparison
    from jobs._run import out_folder, tracking_uri
    from jobs._thumbnails import thumbnails_for

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
        thumbnails=thumbnails_for(options.source, options.dataset, options.root),
    )
    log_comparison(options, out)
    print(comparison_table(report))
    for source in report.sources:
        if "sigma" in source.assumed:
            print(f"{source.name}: {source.notes[0]}")
    for comparison, verdict in zip(report.comparisons, report.verdicts, strict=True):
        print(f"\n{comparison.name}: {verdict}")
    print(f"\nreport: {out}/report.html")


if __name__ == "__main__":
    entry(main)
