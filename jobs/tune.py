"""Search hyperparameters: python -m jobs.tune RECIPE --out DIR --trials K [--metric M] [--space FIELD=…]

Trials run on Ray Tune and fork from trunks: what they have in common before epoch E_t is trained once. They are
measured on images held out from training. The same command again goes on where it was. Leaves trials.parquet,
best.json (a recipe for jobs.train), report.html and summary.json.
"""

from __future__ import annotations

from jobs._main import entry
from jobs._tune_options import parse


def main(argv: list[str]) -> None:
    asked = parse(argv, __doc__)
    from jobs._tune import run  # loads torch, which --help and a mistake need not wait for

    run(asked)


if __name__ == "__main__":
    entry(main)
