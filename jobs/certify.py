"""Certify a classifier: python -m jobs.certify CHECKPOINT --out DIR [--n N] [--every K] [--actors K] …

CHECKPOINT is a train job's folder, its checkpoint/, or runs:/RUN_ID. The same command again goes on where it was.
"""

from __future__ import annotations

from jobs._certify_options import parser
from jobs._main import entry


def main(argv: list[str]) -> None:
    options = parser(__doc__).parse_args(argv)
    from jobs._certify import run  # loads torch, which --help and a mistake need not wait for

    run(options)


if __name__ == "__main__":
    entry(main)
