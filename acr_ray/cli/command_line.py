"""How a user calls a command: ``acr-ray NAME``, or from a checkout ``python -m jobs.NAME``."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
#: What says that a folder named ``jobs`` is this project's, and not another one that lies beside the package.
MARK = "acr_ray.cli"


def jobs_folder() -> Path | None:
    """The folder ``jobs/`` beside the package: of a checkout, an image or a job's working directory. None: a wheel."""
    folder = PACKAGE.parent / "jobs"
    main = folder / "__main__.py"
    return folder if main.is_file() and MARK in main.read_text(encoding="utf-8", errors="replace") else None


def command_line(name: str) -> str:
    """The words that start a command, for usage lines and hints: as this process was started, if that is known."""
    program = Path(sys.argv[0])
    by_script = program.stem == "acr-ray" or program.parts[-2:] == ("acr_ray", "__main__.py")
    return f"acr-ray {name}" if by_script or jobs_folder() is None else f"python -m jobs.{name}"
