"""Compare certificates: the distribution of p_A, certified accuracy, and what ACR hides."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from acr_ray.reporting import Assumptions, comparison_table, write_report
from acr_ray.reporting.paper import LAYOUTS
from acr_ray.settings.errors import UserError
from acr_ray.storage import Folder
from acr_ray.tracking.runs import download, metric_name
from acr_ray.tracking.runs import numbers as metrics_of
from jobs._main import Parser, entry
from jobs._page import NOTE, page_files
from jobs._run import add_result_options, open_tracker, out_folder, tracking_uri


def main(argv: list[str]) -> None:
    """Reads the sources, leaves the report in ``--out`` and prints its table."""
    options = parse(argv)
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


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m jobs.report", description=__doc__)
    add = parser.add_argument
    add("source", nargs="+", metavar="SOURCE", help="[NAME=] a certify folder, certificates.parquet, TSV or ECDF file")
    add_result_options(parser)
    add("--radii", type=numbers, metavar="R,R,…", help="radii of certified accuracy, >= 0 (default: every 0.25 or 0.5)")
    add("--baseline", metavar="NAME", help="the source that others are compared with (default: the first)")
    given = "of files that do not say it; [NAME=]VALUE, may be repeated"
    add("--sigma", action="append", default=[], metavar="S", help=f"noise level > 0 {given} (default: from its name)")
    add("--n", action="append", default=[], metavar="N", help=f"noise draws >= 1 {given} (default: 100000)")
    add(
        "--alpha",
        action="append",
        default=[],
        metavar="A",
        help=f"error probability in (0, 1) {given} (default: 0.001)",
    )
    add("--formats", type=words, default=("png",), metavar="F,F", help="of figures: png, svg, pdf (default: png)")
    add("--layout", choices=LAYOUTS, default="comparison", help="of table.md and table.tex (default: comparison)")
    add("--no-constant", dest="constant", action="store_false", help="leave the constant classifier out")
    return parser.parse_args(argv)


def per_source(option: str, values: list[str], kind: Callable[[str], float]) -> dict[str, float]:
    """``[NAME=]VALUE`` texts as a mapping; the name ``""`` stands for all others."""
    found = {}
    for text in values:
        name, _, value = text.rpartition("=")
        try:
            found[name] = kind(value)
        except ValueError:
            raise UserError(f"{option} {text}: not [NAME=]VALUE with a number") from None
    return found


def numbers(text: str) -> list[float]:
    try:
        return [float(r) for r in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: not numbers with commas between") from None


def words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    entry(main)
