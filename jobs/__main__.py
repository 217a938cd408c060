"""The list of jobs: python -m jobs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def listed() -> dict[str, str]:
    """Each job and the first line of what it says of itself."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.split("\n", 1)[0].split(": python -m")[0].rstrip(".:")
    return found


def main(argv: list[str]) -> int:
    """Print the list; of a word that is no job say so. Returns the exit code."""
    jobs = listed()
    asked = [word for word in argv if word not in ("-h", "--help")]
    if asked:
        name = asked[0]
        told = f"python -m jobs.{name} …" if name in jobs else f"there is no job {name!r}, but {', '.join(jobs)}"
        print(f"error: a job is run as python -m jobs.NAME: {told}", file=sys.stderr)
        return 2
    print("python -m jobs.NAME --help says more of each:\n")
    print("\n".join(f"  jobs.{name:8} {text}" for name, text in jobs.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
