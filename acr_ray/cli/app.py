"""The console script: ``acr-ray NAME …`` does the same as ``python -m jobs.NAME …``."""

from __future__ import annotations

import ast
import difflib
import importlib
import runpy
import sys
from pathlib import Path

from acr_ray import __version__
from acr_ray.cli.command_line import jobs_folder
from acr_ray.cli.exits import run_command

COMMANDS = Path(__file__).parent / "commands"


def command_names() -> dict[str, str]:
    """The commands by name, each with the first line of its description.

    Read as text, so that nothing is loaded to list them. What measures this project alone (``bench``) is no part of
    the package and is listed if ``jobs/`` lies beside it.
    """
    jobs = jobs_folder()
    files = {path.stem: path for path in (jobs.glob("[!_]*.py") if jobs else ())}
    files |= {path.stem.rstrip("_"): path for path in COMMANDS.glob("[!_]*.py")}
    return {name: _first_line(files[name]) for name in sorted(files)}


def main(argv: list[str] | None = None) -> int:
    """Run ``acr-ray`` with these words, else with those of this process. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("-V", "--version"):
        print(f"acr-ray {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print_commands("acr-ray ", "")
        return 0
    name = argv[0]
    if name not in command_names():
        print(f"error: {unknown(name, 'command')} (see acr-ray --help)", file=sys.stderr)
        return 2
    module = next((stem for stem in (name, f"{name}_") if (COMMANDS / f"{stem}.py").is_file()), None)
    if module is None:
        # A file of jobs/ alone, which reads the process's words and ends it.
        jobs = jobs_folder()
        assert jobs is not None  # the name is one of its files
        sys.path.insert(0, str(jobs.parent))
        sys.argv = ["acr-ray", *argv[1:]]
        runpy.run_module(f"jobs.{name}", run_name="__main__", alter_sys=True)
    run_command(importlib.import_module(f"acr_ray.cli.commands.{module}").main, argv[1:])


def list_jobs(argv: list[str]) -> int:
    """Do what ``python -m jobs`` does: list the jobs, or say that it runs none. Returns the exit code."""
    words = [word for word in argv if word not in ("-h", "--help")]
    if words:
        name = words[0]
        hint = f"python -m jobs.{name} …" if name in command_names() else unknown(name, "job")
        print(f"error: a job is run as python -m jobs.NAME: {hint}", file=sys.stderr)
        return 2
    print_commands("python -m jobs.", "jobs.")
    return 0


def print_commands(line: str, shown: str) -> None:
    """Print each command with one line on what it does, after how it is called."""
    print(f"{line}NAME --help says more of each:\n")
    print("\n".join(f"  {shown}{name:8} {text}" for name, text in command_names().items()))


def unknown(name: str, kind: str) -> str:
    """One line on a name that no command has: all there are, and the nearest one."""
    names = list(command_names())
    near = difflib.get_close_matches(name, names, n=1)
    return f"there is no {kind} {name!r}, but {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0].split(": python -m")[0].rstrip(".:")
