"""The console script and ``python -m acr_ray``: what they list, call and refuse."""

import subprocess
import sys
import tomllib
from importlib import import_module

import pytest

from acr_ray import __version__
from acr_ray.cli import app, command_line
from acr_ray.cli.results import TrainResult
from acr_ray.storage import Folder
from tests.fakes.jobs import ROOT, environment


def test_the_script_is_the_app():
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["acr-ray"]
    module, _, function = script.partition(":")
    assert getattr(import_module(module), function) is app.main


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_commands_are_listed(argv, capsys):
    assert app.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("acr-ray NAME --help")
    assert [line.split()[0] for line in lines[2:]] == sorted(app.command_names())
    assert "certify" in app.command_names() and app.command_names()["certify"] == "Certify a classifier"


def test_the_version_is_told(capsys):
    assert app.main(["--version"]) == 0 and capsys.readouterr().out == f"acr-ray {__version__}\n"


@pytest.mark.parametrize(("name", "meant"), [("trian", "train"), ("certificate", "certify"), ("reports", "report")])
def test_an_unknown_name_gets_one_line_and_the_nearest_command(name, meant, capsys):
    assert app.main([name, "--out", "x"]) == 2
    printed, errors = capsys.readouterr()
    assert printed == "" and errors.count("\n") == 1
    assert f"there is no command {name!r}" in errors and f"did you mean {meant}?" in errors


def test_nothing_is_meant_by_what_is_near_to_nothing(capsys):
    assert app.main(["xyzzy"]) == 2 and "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("train", "no-such-recipe"), ("report", "/nowhere", "--out", "x"), ("train", "--list")]
)
def test_a_command_does_what_its_job_does(words, tmp_path):
    ways = (["-m", "acr_ray", *words], ["-m", f"jobs.{words[0]}", *words[1:]])
    by_script, by_job = (
        subprocess.run([sys.executable, *way], cwd=tmp_path, capture_output=True, text=True, env=environment())
        for way in ways
    )
    assert (by_script.returncode, by_script.stdout, by_script.stderr) == (
        by_job.returncode,
        by_job.stdout,
        by_job.stderr,
    )
    assert by_script.returncode == (0 if "--list" in words else 2)


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("/usr/bin/acr-ray", "acr-ray train"),
        ("/x/acr_ray/__main__.py", "acr-ray train"),
        ("/x/jobs/train.py", "python -m jobs.train"),
        ("my_program.py", "python -m jobs.train"),
    ],
)
def test_hints_name_the_command_as_the_user_called_it(program, shown, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program])
    assert command_line.command_line("train") == shown


def test_hints_name_no_job_where_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["my_program.py"])
    monkeypatch.setattr(command_line, "PACKAGE", tmp_path / "acr_ray")
    assert command_line.command_line("train") == "acr-ray train"


def test_a_result_says_where_its_checkpoint_is(tmp_path):
    result = TrainResult(Folder(tmp_path), {"recipe": "digits"})
    assert result.checkpoint == f"{tmp_path}/checkpoint" and not result.done_before
