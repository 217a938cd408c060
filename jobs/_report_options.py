"""The options of jobs.report."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from acr_ray.settings.errors import UserError
from acr_ray.settings.recipe import DATASETS
from jobs._main import Parser
from jobs._run import add_result_options

LAYOUTS = ("comparison", "paper", "ablation")  # as acr_ray.reporting.paper has them; that would load matplotlib


def parse(argv: list[str], about: str) -> argparse.Namespace:
    parser = Parser(prog="python -m jobs.report", description=about)
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
    add("--dataset", choices=DATASETS, help="of thumbnails (default: what a certify folder among the sources says)")
    add("--data.root", dest="root", metavar="PATH", help="folder of its images; digits need none")
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
