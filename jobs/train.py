"""Train a classifier: python -m jobs.train RECIPE --out DIR [--workers N] [--section.field VALUE …]

RECIPE is a name (--list), or a .yaml or .json file. The same command again goes on where the run was.
"""

from __future__ import annotations

from jobs._main import entry
from jobs._train_options import parse


def main(argv: list[str]) -> None:
    parsed = parse(argv, __doc__)
    if parsed is not None:
        from jobs._train import run  # loads torch, which --help and a mistake need not wait for

        run(parsed[0].with_absolute_paths(), parsed[1])


if __name__ == "__main__":
    entry(main)
