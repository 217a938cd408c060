"""Submit a job with its code alone: python -m jobs.submit [OPTIONS] -- python -m jobs.NAME …

As ``ray job submit --working-dir .``, from a folder full of results too: what is uploaded is this package's code, the
small .py, .yaml and .json files of the current folder, and what --with names. OPTIONS are those of ray job submit
(--address, --no-wait, --submission-id, …); its address is --address or RAY_API_SERVER_ADDRESS.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from acr_ray.settings.errors import UserError
from cluster.code import code_folder
from jobs._main import JobFailed, Parser, entry


def parser() -> Parser:
    found = Parser(prog="python -m jobs.submit", description=__doc__)
    found.add_argument(
        "--with", dest="others", action="append", default=[], metavar="PATH",
        help="a file or folder that goes along; may be repeated",
    )  # fmt: skip
    return found


def main(argv: list[str]) -> None:
    at = argv.index("--") if "--" in argv else len(argv)
    options, to_ray = parser().parse_known_args(argv[:at])
    command = argv[at + 1 :]
    if not command:
        raise UserError("nothing to submit; give the job after --, such as: -- python -m jobs.train digits --out DIR")
    if any(word.split("=")[0] == "--working-dir" for word in to_ray):
        raise UserError("--working-dir: jobs.submit makes it; name more files by --with, or use ray job submit itself")
    with code_folder(Path.cwd(), [Path(p).expanduser() for p in options.others]) as folder:
        words = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", str(folder)]
        code = subprocess.run([*words, *to_ray, "--", *command], check=False).returncode
    if code:
        raise JobFailed(f"ray job submit ended with code {code}; its lines above say why")


if __name__ == "__main__":
    entry(main)
