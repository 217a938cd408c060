"""Submit a job with its code alone.

As ``ray job submit --working-dir .``, from a folder full of results too: what is uploaded is this package's code, the
small .py, .yaml and .json files of the current folder, and what --with names. OPTIONS are those of ray job submit
(--address, --no-wait, --submission-id, …); its address is --address or RAY_API_SERVER_ADDRESS.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from acr_ray.cli.code_folder import code_folder
from acr_ray.cli.command_line import command_line
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.parser import Parser
from acr_ray.cli.results import SubmitResult
from acr_ray.settings.errors import UserError


def run(command: Sequence[str], *, ray_options: Sequence[str] = (), others: Sequence[str] = ()) -> SubmitResult:
    """Submit a job by ``ray job submit``, whose output is passed on.

    Args:
        command: the job, e.g. ``["python", "-m", "jobs.train", "digits", "--out", "s3://bucket/run"]``.
        ray_options: of ``ray job submit``, but for ``--working-dir``.
        others: files and folders that go along, beside the code and the small files of the current folder.

    Raises:
        UserError: no job, a file that is not there, or more than Ray uploads.
    """
    if not command:
        job = f"{command_line('train')} digits --out DIR"
        raise UserError(f"nothing to submit; give the job after --, such as: -- {job}")
    if any(word.split("=")[0] == "--working-dir" for word in ray_options):
        raise UserError("--working-dir: this command makes it; name more files by --with, or use ray job submit itself")
    with code_folder(Path.cwd(), [Path(path).expanduser() for path in others]) as folder:
        words = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", str(folder)]
        done = subprocess.run([*words, *ray_options, "--", *command], check=False)
    return SubmitResult(done.returncode)


def main(argv: list[str]) -> None:
    """Read the command line, and submit what stands after ``--``."""
    at = argv.index("--") if "--" in argv else len(argv)
    options, ray_options = parser().parse_known_args(argv[:at])
    result = run(argv[at + 1 :], ray_options=ray_options, others=options.others)
    if result.exit_code:
        raise CommandFailed(f"ray job submit ended with code {result.exit_code}; its lines above say why")


def parser() -> Parser:
    """Make the command's parser; what it does not know is for ``ray job submit``."""
    usage = f"%(prog)s [--with PATH] [OPTIONS] -- {command_line('NAME')} …"
    parser = Parser(prog=command_line("submit"), usage=usage, description=__doc__)
    parser.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        metavar="PATH",
        help="a file or folder that goes along; may be repeated",
    )
    return parser
