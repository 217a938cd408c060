"""Submitting uploads the code alone, whatever lies beside it; `python -m jobs` lists the jobs."""

import subprocess
import sys
from pathlib import Path

import pytest

from acr_ray.cli.app import command_names, list_jobs
from acr_ray.cli.code_folder import ROOT, code_folder
from acr_ray.cli.commands import demo, submit
from acr_ray.cli.exits import CommandFailed
from acr_ray.settings import UserError


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def sparse(path, size):
    """A file of so many bytes that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(size)


@pytest.fixture
def full(tmp_path):
    """A folder where a user has worked: own files, and results that Ray would refuse to upload."""
    sparse(tmp_path / "runs" / "ours" / "checkpoint" / "model.safetensors", 620_000_000)
    sparse(tmp_path / "mlflow.db", 200_000_000)
    sparse(tmp_path / "large.json", 5_000_000)
    for name in ("my_terms.py", "recipe.yaml", "best.json", "notes.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_the_code_and_the_users_small_files_go_along_and_no_results(full):
    with code_folder(full) as folder:
        held = files_of(folder)
        assert {"my_terms.py", "recipe.yaml", "best.json", "acr_ray/__init__.py", "jobs/train.py"} <= held
        assert {name.split("/")[0] for name in held if "/" in name} == {"acr_ray", "jobs"}
        assert not any(name in held for name in ("notes.txt", "large.json", "mlflow.db"))
        assert sum((folder / name).stat().st_size for name in held) < 5 * 2**20
        assert not any("__pycache__" in name for name in held)
        code = "import jobs.train, acr_ray; print(acr_ray.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={"HOME": "/"}
        )
        assert done.returncode == 0 and done.stdout.startswith(str(folder)), done.stderr
    assert not folder.exists()


def test_what_is_named_goes_along_unless_it_is_too_large(full):
    with code_folder(None, [full / "notes.txt", full / "runs" / ".." / "recipe.yaml"]) as folder:
        assert {"notes.txt", "recipe.yaml"} <= files_of(folder) and "my_terms.py" not in files_of(folder)
    with (
        pytest.raises(UserError, match=r"--with .*/runs: 591 MB; Ray uploads 100 MB at most"),
        code_folder(None, [full / "runs"]),
    ):
        pass
    with pytest.raises(UserError, match="there is no such file"), code_folder(None, [full / "absent"]):
        pass


@pytest.fixture
def submitted(monkeypatch):
    """What would be run in place of ray job submit, and what lay in its working directory."""
    calls = []

    def run(words, check=False):
        calls.append((words, files_of(Path(words[words.index("--working-dir") + 1]))))
        return subprocess.CompletedProcess(words, calls_code[0])

    calls_code = [0]
    monkeypatch.setattr(submit.subprocess, "run", run)
    calls.append(calls_code)
    return calls


def test_options_of_ray_and_the_job_are_handed_on(full, submitted, monkeypatch):
    monkeypatch.chdir(full)
    job = ["python", "-m", "jobs.train", "digits", "--out", "s3://b/x", "--with", "me"]
    environment = '{"env_vars": {"A": "1"}}'
    submit.main(
        [
            "--address",
            "http://h:8265",
            "--no-wait",
            "--runtime-env-json",
            environment,
            "--with",
            "notes.txt",
            "--",
            *job,
        ]
    )
    words, held = submitted[1]
    assert words[words.index("--") + 1 :] == job and "my_terms.py" in held and "notes.txt" in held
    assert words[words.index("--address") : words.index("--")] == [
        "--address",
        "http://h:8265",
        "--no-wait",
        "--runtime-env-json",
        environment,
    ]
    submitted[0][0] = 7
    with pytest.raises(CommandFailed, match="ended with code 7"):
        submit.main(["--", *job])


@pytest.mark.parametrize("argv", [[], ["--no-wait"], ["--"], ["--working-dir", ".", "--", "true"]])
def test_mistakes_are_said_before_anything_is_sent(argv, submitted):
    with pytest.raises(UserError):
        submit.main(argv)
    assert len(submitted) == 1


def test_the_demo_uploads_the_code_alone(monkeypatch, tmp_path):
    class Head:
        dashboard, token = "http://127.0.0.1:1", "secret"

        def __init__(self, cpus, alone):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    submitted = []

    def run_job(dashboard, token, entrypoint, folder):
        submitted.append((dashboard, token, entrypoint, folder, files_of(folder)))
        return len(submitted) == 1

    monkeypatch.setattr(demo, "PrivateHead", Head)
    monkeypatch.setattr(demo, "run_job", run_job)
    result = demo.run(str(tmp_path), seed=3)
    dashboard, token, entrypoint, folder, held = submitted[0]
    assert (dashboard, token) == ("http://127.0.0.1:1", "secret")
    assert entrypoint == f"python -m jobs.demo --inside --out {tmp_path} --seed 3 --n 10000"
    assert folder != ROOT and "jobs/demo.py" in held and {name.split("/")[0] for name in held} == {"acr_ray", "jobs"}
    assert result.mlflow_uri == f"sqlite:///{tmp_path}/mlflow.db" and str(result.folder) == str(tmp_path)
    with pytest.raises(CommandFailed, match="run make demo again to resume"):
        demo.main(["--out", str(tmp_path)])


def test_results_that_the_readme_makes_are_not_uploaded_by_ray_either():
    assert "runs/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_jobs_are_listed(capsys):
    assert list_jobs([]) == 0
    printed = capsys.readouterr().out
    names = {path.stem for path in (ROOT / "jobs").glob("[!_]*.py")}
    assert set(command_names()) == names and all(f"jobs.{name} " in printed for name in names)
    assert all(len(text) > 10 for text in command_names().values())
    assert list_jobs(["trian"]) == 2 and "there is no job 'trian', but audit" in capsys.readouterr().err
    assert list_jobs(["train"]) == 2 and "python -m jobs.train" in capsys.readouterr().err
