"""The page that ``bench gpu`` leaves: what held, what did not, and the figures, as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TITLE = "# What one GPU has shown"


def write_page(path: Path, found: dict[str, Any]) -> None:
    """Write the page.

    Args:
        found: ``machine``, ``lines`` (``part``, ``status``: passed, failed, measured or skipped, ``name``, values)
            and ``failed``, as `jobs.benchmarks.gpu.run` has them.
    """
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    lines = found["lines"]
    passed = sum(line["status"] == "passed" for line in lines)
    parts = [TITLE, "", f"Written by `python -m jobs.bench gpu`. {machine}.", ""]
    parts += [f"{passed} checks passed, {len(found['failed'])} failed.", ""]
    for part in dict.fromkeys(line["part"] for line in lines):
        of_part = [line for line in lines if line["part"] == part]
        parts += [f"## {part}", "", "| | what | values |", "| --- | --- | --- |"]
        parts += [f"| {line['status']} | {_safe(line['name'])} | {_safe(_values(line))} |" for line in of_part]
        parts.append("")
    path.write_text("\n".join(parts))


def _values(line: dict[str, Any]) -> str:
    own = {key: value for key, value in line.items() if key not in ("part", "status", "name")}
    return ", ".join(f"{key} {shown(value)}" for key, value in own.items())


def shown(value: Any) -> str:
    """Numbers short, figures as median (least to greatest), the rest as it is."""
    if isinstance(value, dict) and {"median", "min", "max"} <= value.keys():
        return f"{shown(value['median'])} ({shown(value['min'])} to {shown(value['max'])}, {value['runs']} runs)"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {shown(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _safe(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
