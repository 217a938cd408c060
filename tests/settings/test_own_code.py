"""A user's own code is found in the working directory, and what is wrong with it is said in a line."""

import sys

import pytest

from acr_ray.settings import UserError
from acr_ray.settings.own_code import is_own, load_named


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_function_in_the_working_directory_is_found(here):
    (here / "code_of_mine.py").write_text("def images():\n    return 7\n")
    assert load_named("code_of_mine:images", "--dataset")() == 7


@pytest.mark.parametrize(
    "text, name, said",
    [
        ("", "code_of_yours:missing", "code_of_yours.py has no function missing"),
        ("number = 3\n", "code_of_yours:number", "has no function number"),
        ("import sys\nsys.exit(3)\n", "code_of_yours:a", "cannot be imported (SystemExit: 3)"),
        ("1 +\n", "code_of_yours:a", "cannot be imported (SyntaxError"),
        ("", "absent_of_yours:a", "must be in the working directory"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(here, text, name, said):
    (here / "code_of_yours.py").write_text(text)
    with pytest.raises(UserError) as error:
        load_named(name, f"--dataset {name}")
    assert said in str(error.value) and str(error.value).startswith(f"--dataset {name}: ")


def test_a_path_or_an_address_is_no_such_name():
    assert is_own("my.data:images")
    assert not any(is_own(name) for name in ("folder", "s3://bucket/x", "a:b:c", "C:\\data", "runs:/abc", ":a", "a:"))
