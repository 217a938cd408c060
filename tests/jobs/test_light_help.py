"""--help and a mistake in the options are answered before anything large is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from acr_ray.data.imagenet import SIZE
from acr_ray.reporting.paper import LAYOUTS
from acr_ray.training.checkpoint_store import BEST
from jobs import _report_options, _train_options, pack
from jobs.__main__ import listed

LARGE = {"torch", "torchvision", "matplotlib", "ray", "mlflow", "scipy", "pandas", "sklearn"}
CODE = """
import runpy, sys
sys.argv = ["jobs.{job}", *{arguments!r}]
try:
    runpy.run_module("jobs.{job}", run_name="__main__")
except SystemExit as end:
    print(end.code, sorted({large!r} & set(sys.modules)))
"""


def loaded(job, *arguments):
    code = CODE.format(job=job, arguments=arguments, large=LARGE)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("job", sorted(listed()))
def test_help_loads_nothing_large(job):
    assert loaded(job, "--help") == "0 []"


@pytest.mark.parametrize(
    ("job", "arguments"),
    [
        ("train", ["no-such-recipe"]), ("train", ["digits", "--training.sigma", "-1"]),
        ("train", ["digits", "--oit", "x"]), ("certify", []), ("certify", ["run", "--n", "1.5", "--actors", "0"]),
        ("tune", ["digits", "--trials", "0"]), ("compare", ["x"]), ("report", []), ("audit", []),
    ],
)  # fmt: skip
def test_a_mistake_loads_nothing_large(job, arguments):
    assert loaded(job, *arguments) == "2 []"


def test_what_is_written_again_is_the_same():
    assert pack.SIZE == SIZE and _report_options.LAYOUTS == LAYOUTS
    assert set(_train_options.BEST) == set(BEST)
