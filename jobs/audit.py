"""Audit certifications from their ledgers alone: python -m jobs.audit RUN [RUN …] --out DIR [--alpha A] [--redraw K]

RUN is a folder of jobs.certify. Radii are derived anew (for another --alpha or --bound: of runs with a fixed n);
several RUNs of one classifier are merged (other images, or more draws of the same). --redraw K draws K lines of the
ledger again with --checkpoint and compares counts. Leaves certificates.parquet, certificates.tsv, summary.json.
"""

from __future__ import annotations

from jobs._main import Parser, entry, number, whole


def parser() -> Parser:
    found = Parser(prog="python -m jobs.audit", description=__doc__)
    found.add_argument("runs", metavar="RUN", nargs="+", help="folders of jobs.certify")
    found.add_argument("--out", metavar="DIR", help="where results go: a path, or a URI such as s3://… [required]")
    found.add_argument("--overwrite", action="store_true", help="start anew where DIR holds another audit")
    found.add_argument("--alpha", type=number(1e-300, below=1), help="another error probability [default: the runs']")
    found.add_argument("--bound", choices=("clopper-pearson", "randomized"), help="another bound [default: the runs']")
    found.add_argument(
        "--rho", type=number(1e-300, below=1), default=0.001, help="of the statement on all images [0.001]"
    )
    found.add_argument("--redraw", type=whole(1), metavar="K", help="draw K lines of each ledger again")
    found.add_argument("--redraw-seed", type=whole(0), default=0, metavar="S", help="of the choice of lines [0]")
    found.add_argument("--checkpoint", metavar="CHECKPOINT", help="the model, for --redraw")
    found.add_argument("--data.root", dest="root", metavar="PATH", help="the images, for --redraw; digits need none")
    found.add_argument(
        "--data.class_map", dest="class_map", metavar="FILE", help="names of class folders, for --redraw"
    )
    return found


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    from jobs._audit import run  # loads scipy, which --help and a mistake need not wait for

    run(options)


if __name__ == "__main__":
    entry(main)
