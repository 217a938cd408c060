"""What keeps methods apart: a file each, none that needs another's, and a loop that knows none of them."""

import ast
import inspect
from pathlib import Path

import pytest

import acr_ray.training.loop as loop
import acr_ray.training.methods as methods
from acr_ray.settings.methods import BUILT_IN
from acr_ray.training.methods import build_method
from tests.training.methods.test_on_digits import recipe

FOLDER = Path(methods.__file__).parent


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_methods_file_imports_another_methods(name):
    others = {f"acr_ray.training.methods.{other}" for other in BUILT_IN if other != name}
    shared = {"base", "likelihood", "input_attacks", "noise_attacks"}
    for file in (name, *shared):
        assert not others & set(imported(FOLDER / f"{file}.py")), file


def test_the_loop_contains_no_methods_name():
    text = Path(loop.__file__).read_text().lower()
    assert not [name for name in BUILT_IN if name in text]


def test_methods_run_without_ray_and_mlflow():
    found = {module.split(".")[0] for file in FOLDER.glob("*.py") for module in imported(file)}
    assert not found & {"ray", "mlflow"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_says_its_formula_and_its_cost(name):
    method = build_method(recipe(name, {}))
    text = inspect.getdoc(type(method))
    assert "mean over" in text and "Cost of a step:" in text
    stated = method.passes(32, 4)
    forward, backward = stated.forward, stated.backward
    assert forward >= 128 and backward >= 128
