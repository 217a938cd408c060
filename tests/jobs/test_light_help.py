"""--help and a mistake in the options are answered before anything large is loaded, in little processor time."""

import resource
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from acr_ray.cli.app import command_names
from acr_ray.cli.commands import pack, report, train, tune
from acr_ray.cli.tune_arguments import TuneArguments
from acr_ray.data.imagenet import SIZE
from acr_ray.reporting.paper import LAYOUTS
from acr_ray.training.checkpoint_store import BEST
from tests.fakes.jobs import ROOT

LARGE = {"torch", "torchvision", "matplotlib", "ray", "mlflow", "scipy", "pandas", "sklearn", "jinja2"}
CODE = """
import runpy, sys
sys.argv = [{program!r}, *{arguments!r}]
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as end:
    print(end.code, sorted({large!r} & set(sys.modules)))
"""
SECONDS = 1.0  # of processor time, user and system


def loaded(module, *arguments):
    """What a call ends with, and the large packages that it loaded; fails if it takes longer than `SECONDS`."""
    code = CODE.format(program=module, module=module, arguments=arguments, large=LARGE)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert spent <= SECONDS, f"{spent:.2f} s of processor time"
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", sorted(command_names()))
def test_help_loads_nothing_large(name):
    assert loaded(f"jobs.{name}", "--help") == "0 []"


@pytest.mark.parametrize("name", ["train", "bench", "report"])
def test_help_of_the_console_script_loads_nothing_large(name):
    assert loaded("acr_ray", name, "--help") == "0 []"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"]])
def test_the_list_of_commands_loads_nothing_large(arguments):
    assert loaded("acr_ray", *arguments) == "0 []"


MISTAKES = [
    ("train", ["no-such-recipe"]),
    ("train", ["digits", "--training.sigma", "-1"]),
    ("train", ["digits", "--oit", "x"]),
    ("certify", []),
    ("certify", ["run", "--n", "1.5", "--actors", "0"]),
    ("tune", ["digits", "--trials", "0"]),
    ("compare", ["x"]),
    ("report", []),
    ("audit", []),
    ("audit", ["run", "--redraw", "3"]),
    ("pack", []),
    ("doctor", ["--seconds", "1"]),
    ("demo", ["--n", "1"]),
    ("submit", []),
    ("import", ["weights.pth"]),
    ("export", []),
    ("serve", []),
    ("serve", ["model", "--host", "0.0.0.0"]),
    ("serve", ["model", "--rows", "70"]),
    ("serve", ["model", "--dtype", "tf32"]),
    ("bench", ["nothing"]),
]


@pytest.mark.parametrize(("name", "arguments"), MISTAKES)
def test_a_mistake_loads_nothing_large(name, arguments):
    assert loaded(f"jobs.{name}", *arguments) == "2 []"


@pytest.mark.parametrize("name", ["trian", "jobs.train"])
def test_an_unknown_command_loads_nothing_large(name):
    assert loaded("acr_ray", name) == "2 []"


def test_commands_are_imported_without_anything_large():
    names = [
        f"acr_ray.cli.commands.{'import_' if name == 'import' else name}" for name in command_names() if name != "bench"
    ]
    code = f"import sys, {', '.join(names)}; print(sorted({LARGE!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert len(names) == 14 and done.stdout == "[]\n"


def test_what_is_written_again_is_the_same():
    assert pack.SIZE == SIZE and report.LAYOUTS == LAYOUTS
    assert set(train.BEST_BY) == set(BEST)
    hints = get_type_hints(TuneArguments)
    assert (get_args(hints["search"]), get_args(hints["scheduler"])) == (tune.SEARCHES, tune.SCHEDULERS)


def test_work_on_digits_begins_without_torchvision_and_matplotlib():
    """They take seconds to load in each driver, worker and actor; only some networks, images and figures need them."""
    # In one process, since each loads torch: the first module that brings one of them along is named.
    code = """
import importlib, sys
def check(after):
    print(after, sorted({"torchvision", "matplotlib", "ray", "mlflow"} & set(sys.modules)))
for module in ("training.loop", "certification.sampler", "cli.drivers.certification", "cli.drivers.training"):
    importlib.import_module(f"acr_ray.{module}")
    check(module)
from acr_ray.data import open_images
open_images("digits", None, "test")
check("digits")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()] == ["[]"] * 5, done.stdout
