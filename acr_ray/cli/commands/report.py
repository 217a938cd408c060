"""Compare certificates: the distribution of p_A, certified accuracy, and what ACR hides.

Leaves report.html (one file), figures, table.md, table.tex and summary.json in DIR.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import add_result_options
from acr_ray.cli.parser import Parser, dataset_name
from acr_ray.cli.results import ReportResult
from acr_ray.cli.session import RunOptions
from acr_ray.formats.files import SUMMARY
from acr_ray.settings.errors import UserError

LAYOUTS = ("comparison", "paper", "ablation")  # as acr_ray.reporting.paper has them; that would load matplotlib


Number = TypeVar("Number", int, float)


def run(
    sources: Sequence[str],
    options: RunOptions,
    *,
    radii: Sequence[float] | None = None,
    baseline: str | None = None,
    sigma: Mapping[str, float] | None = None,
    n: Mapping[str, int] | None = None,
    alpha: Mapping[str, float] | None = None,
    formats: Sequence[str] = ("png",),
    layout: str = "comparison",
    dataset: str | None = None,
    root: str | None = None,
    constant: bool = True,
    best_per_radius: bool = False,
) -> ReportResult:
    """Compare certificates, and print the table.

    Args:
        sources: certify folders, ``certificates.parquet``, TSV or ECDF files of the field, or ``runs:/RUN_ID``;
            ``NAME=SOURCE`` names one.
        options: where the report goes, and how it is tracked.
        radii: of certified accuracy, >= 0; None: multiples of 0.25 or 0.5.
        baseline: the source that others are compared with; None: the first.
        sigma, n, alpha: of files that do not say them, by source name; the name ``""`` stands for all others.
        formats: of figures: ``png``, ``svg``, ``pdf``.
        layout: of ``table.md`` and ``table.tex``, one of `LAYOUTS`.
        dataset: whose images are shown; None: what a certify folder among the sources says.
        root: the folder of these images; digits need none.
        constant: add the constant classifier.
        best_per_radius: choose the best source for each radius; all must share images, alpha and kind of certificate.

    Raises:
        UserError: a source can't be read, or an argument doesn't fit.
    """
    # Here, so that --help and a mistake need not wait for them.
    from acr_ray.cli.drivers.mlflow_reports import log_comparison
    from acr_ray.cli.drivers.thumbnails import thumbnails_for
    from acr_ray.reporting import Assumptions, comparison_table, write_report
    from acr_ray.tracking.runs import download

    out = options.folder()
    uri = options.mlflow_uri(out)
    report = write_report(
        list(sources),
        out,
        radii=radii,
        constant=constant,
        baseline=baseline,
        assumptions=Assumptions(sigma=dict(sigma or {}), n=dict(n or {}), alpha=dict(alpha or {})),
        formats=formats,
        layout=layout,
        best=best_per_radius,
        resolve_run=lambda run: f"{download(run, '', uri)}",
        thumbnails=thumbnails_for(sources, dataset, root),
    )
    log_comparison(options, out)
    table = comparison_table(report)
    print(table)
    for source in report.sources:
        if "sigma" in source.assumed:
            print(f"{source.name}: {source.notes[0]}")
    for comparison, verdict in zip(report.comparisons, report.verdicts, strict=True):
        print(f"\n{comparison.name}: {verdict}")
    print(f"\nreport: {out}/report.html")
    return ReportResult(out, out.read_json(SUMMARY), table, report.verdicts)


def main(argv: list[str]) -> None:
    """Read the command line, and compare."""
    options = parser().parse_args(argv)
    run(
        options.source,
        RunOptions.of(options),
        radii=options.radii,
        baseline=options.baseline,
        sigma=_per_source("--sigma", options.sigma, float),
        n=_per_source("--n", options.n, int),
        alpha=_per_source("--alpha", options.alpha, float),
        formats=options.formats,
        layout=options.layout,
        dataset=options.dataset,
        root=options.root,
        constant=options.constant,
        best_per_radius=options.best_per_radius,
    )


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s [NAME=]SOURCE [[NAME=]SOURCE …] --out DIR [OPTIONS]"
    parser = Parser(prog=command_line("report"), usage=usage, description=__doc__)
    add = parser.add_argument_group("what to compare").add_argument
    add("source", nargs="+", metavar="SOURCE", help="[NAME=] a certify folder, certificates.parquet, TSV or ECDF file")
    add("--baseline", metavar="NAME", help="the source that others are compared with [default: the first]")
    add("--no-constant", dest="constant", action="store_false", help="leave the constant classifier out")
    add(
        "--best-per-radius",
        action="store_true",
        help="choose the best source for each radius, on other images than its number is counted on",
    )
    add = parser.add_argument_group("noise and guarantee").add_argument
    each = "of files that do not say it; [NAME=]VALUE, may be repeated"
    add("--sigma", action="append", default=[], metavar="S", help=f"noise level > 0 {each} [default: from its name]")
    add("--n", action="append", default=[], metavar="N", help=f"noise draws >= 1 {each} [default: 100000]")
    add(
        "--alpha",
        action="append",
        default=[],
        metavar="A",
        help=f"error probability in (0, 1) {each} [default: 0.001]",
    )
    add = parser.add_argument_group("tables and figures").add_argument
    add(
        "--radii", type=_numbers, metavar="R,R,…", help="radii of certified accuracy, >= 0 [default: every 0.25 or 0.5]"
    )
    add("--layout", choices=LAYOUTS, default="comparison", help="of table.md and table.tex [default: comparison]")
    add("--formats", type=_words, default=("png",), metavar="F,F", help="of figures: png, svg, pdf [default: png]")
    add(
        "--dataset",
        type=dataset_name,
        metavar="NAME",
        help="of thumbnails [default: what a certify folder among the sources says]",
    )
    add("--data.root", dest="root", metavar="PATH", help="folder of its images; digits need none")
    add_result_options(parser)
    return parser


def _per_source(option: str, values: list[str], kind: Callable[[str], Number]) -> dict[str, Number]:
    """``[NAME=]VALUE`` texts as a mapping; the name ``""`` stands for all others."""
    by_name = {}
    for text in values:
        name, _, value = text.rpartition("=")
        try:
            by_name[name] = kind(value)
        except ValueError:
            raise UserError(f"{option} {text}: not [NAME=]VALUE with a number") from None
    return by_name


def _numbers(text: str) -> list[float]:
    try:
        return [float(r) for r in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: not numbers with commas between") from None


def _words(text: str) -> list[str]:
    return text.split(",")
