"""The pages a newcomer reads: their links lead somewhere, and the commands in them parse."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from acr_ray import __version__
from acr_ray.cli.commands import train, tune
from jobs.bench import BENCHMARKS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "cluster" / "README.md", ROOT / "docker" / "README.md"]


def name(path):
    return str(path.relative_to(ROOT))


def anchors(path):
    """GitHub's: of each heading, lower case, words with dashes between."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{name(page)}: {target}"
        assert not anchor or anchor in anchors(there), f"{name(page)}: {target}"


def commands():
    """Every command line of ours in a code block or in backquotes: (page, words after the job's name, job)."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        lines = [
            line
            for block in re.findall(r"```(?:console|bash|sh)\n(.*?)```", text, re.DOTALL)
            for line in block.splitlines()
        ]
        lines += re.findall(r"`(python -m jobs\.[^`]*)`", text)
        for line in lines:
            line = line.removeprefix("$ ").split("  #")[0].split(" # ")[0].split(" | ")[0]
            line = line.rpartition("jobs.submit -- ")[2]
            match = re.search(r"(?:python -m jobs\.|acr-ray )([a-z]+)\b(.*)", line)
            if match and not any(mark in line for mark in ("…", "NAME", "[--", " RECIPE", "DIR", "|", "<", "$")):
                found.append(pytest.param(match[1], match[2], id=f"{name(page)}: {match[1]}{match[2]}"[:110]))
    return found


@pytest.mark.parametrize(("job", "rest"), commands())
def test_commands_parse(job, rest, tmp_path, monkeypatch):
    arguments = shlex.split(rest)
    if job in ("train", "tune"):
        parse = {"train": train.parse, "tune": tune.parse}[job]
        if any(word.endswith((".json", ".yaml")) for word in arguments):  # a recipe of the reader's
            arguments = ["digits" if word.endswith((".json", ".yaml")) else word for word in arguments]
        assert parse(arguments) is not None
    elif job == "bench":
        benchmark = arguments[0] if arguments else "certify"
        assert benchmark in BENCHMARKS or benchmark.startswith("-")
    elif job != "submit":
        module = "import_" if job == "import" else job  # a word of Python
        importlib.import_module(f"acr_ray.cli.commands.{module}").parser().parse_args(arguments)


def test_enough_commands_are_tried():
    assert len(commands()) > 25


def test_the_pages_name_this_version():
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()


def test_the_readme_is_short_and_names_every_page():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 160
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in readme or page.name == "gpu-results.md"
    jobs = {path.stem.rstrip("_") for path in (ROOT / "acr_ray" / "cli" / "commands").glob("[!_]*.py")}
    assert all(f"jobs.{job}" in readme for job in jobs)
