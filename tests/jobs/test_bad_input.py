"""A user's mistakes: one clear line, exit code 2, nothing written. A few as processes of their own."""

import json
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from acr_ray.cli.commands import audit, certify, compare, demo, doctor, pack, report, train, tune
from acr_ray.cli.exits import run_command
from acr_ray.cli.session import RunOptions, open_tracked_run
from acr_ray.settings import UserError
from acr_ray.storage import Folder
from tests.fakes.images import write_cifar10, write_imagenet
from tests.fakes.jobs import run
from tests.fakes.models import write_digits_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_digits_checkpoint(tmp_path_factory.mktemp("model"))


MODULES = {"train": train, "certify": certify}


@pytest.fixture
def refused(capsys, monkeypatch):
    """Runs a job in this process, as ``python -m`` would, and gives the one line that it says of a mistake."""

    def call(job, *arguments, out=None):
        monkeypatch.setattr(sys, "argv", [job, *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as left:
                run_command(MODULES[job].main)
        finally:
            signal.signal(signal.SIGTERM, before)
        printed, errors = capsys.readouterr()
        return the_line(left.value.code, printed, errors, out)

    return call


def the_line(code, printed, errors, out=None):
    lines = [line for line in errors.splitlines() if line.strip()]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: "), f"{code} {errors}"
    assert printed == "" and (out is None or not out.exists()), "something was written"
    return lines[0]


@pytest.mark.parametrize(
    "job, arguments, word",
    [
        ("train", ["cifar-0.25"], "unknown recipe"),
        ("train", ["digits", "--training.sigma", "0"], "training.sigma"),
        ("certify", ["/nowhere"], "/nowhere"),
    ],
)
def test_as_a_process(job, arguments, word, tmp_path):
    printed, errors = run(job, *arguments, "--out", tmp_path / "out", code=2)
    assert word in the_line(2, printed, errors, tmp_path / "out")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["cifar-0.25"], ["RECIPE cifar-0.25", "unknown recipe", "digits-gaussian"]),
        (["missing.yaml"], ["RECIPE missing.yaml"]),
        ([], ["RECIPE", "missing"]),
        (["digits", "--training.sigma", "0"], ["training.sigma", "> 0"]),
        (["digits", "--training.sigma", "-0.5"], ["training.sigma", "> 0"]),
        (["digits", "--discard.p_t", "1.5"], ["discard.p_t", "1.5", "0 to 1"]),
        (["digits", "--training.e_t", "60"], ["training.e_t", "60", "0 to 59"]),
        (["digits", "--method.name", "macaroni"], ["method", "macaroni", "macer"]),
        (["digits", "--method.name", "nowhere:Class"], ["nowhere"]),
        (["digits", "--method.name", "macer", "--method.gamma", "-1"], ["method.gamma"]),
        (["digits", "--training.what", "1"], ["--training.what"]),
        (["digits", "--workers", "0"], ["--workers", "0", "1 to 100000"]),
        (["digits", "--workers", "two"], ["--workers", "two"]),
        (["digits", "--model.architecture", "resnet9000"], ["resnet9000", "digits_resnet"]),
        (["cifar10-0.5"], ["data.root", "--data.root PATH"]),
        (["cifar10-0.5", "--data.root", "/nowhere"], ["--data.root", "/nowhere", "cifar-10-batches-py"]),
        (["imagenet-gaussian-0.5", "--data.root", "/nowhere"], ["--data.root", "/nowhere", "train"]),
        (["imagenet-0.5", "--data.root", "/nowhere"], ["discard.checkpoint", "--discard.checkpoint DIR"]),
    ],
)
def test_train(arguments, words, tmp_path, refused):
    line = refused("train", *arguments, "--out", tmp_path / "out", out=tmp_path / "out")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--sigma", "0"], ["sigma", "'0'", "> 0"]),
        (["--n", "5"], ["n = 5", "alpha", ">= 10"]),
        (["--alpha", "0"], ["alpha", "between 0 and 1"]),
        (["--alpha", "1.5"], ["alpha", "between 0 and 1"]),
        (["--n0", "none"], ["n0"]),
        (["--radii", "1,0.5"], ["radii", "increasing"]),
        (["--image-list", "/nowhere.txt"], ["--image-list", "/nowhere.txt"]),
        (["--dataset", "cifar10"], ["data.root"]),
        (["--actors", "0"], ["--actors"]),
        (["--gpus-per-actor", "-1"], ["--gpus-per-actor"]),
    ],
)
def test_certify(arguments, words, checkpoint, tmp_path, refused):
    line = refused("certify", checkpoint, "--out", tmp_path / "out", *arguments, out=tmp_path / "out")
    assert all(word in line for word in words), line


def test_more_actors_or_workers_than_the_cluster_holds(checkpoint, tmp_path, head):
    line = refused_late(head, "certify", checkpoint, "--out", tmp_path / "a", "--actors", 999)
    assert "--actors 999" in line and "room for" in line
    for arguments in (["digits", "--workers", 32], ["digits", "--cpus-per-worker", 99]):
        line = refused_late(
            head, "train", *arguments, "--out", tmp_path / "b", "--tracking-uri", f"sqlite:///{tmp_path}/m.db"
        )
        assert "--workers" in line and "CPU" in line
    assert list(tmp_path.iterdir()) == [], "something was made for a run that was refused"


def refused_late(head, job, *arguments):
    """As `refused`, where Ray has to be asked first and may have its own word on stderr."""
    _, errors = run(job, *arguments, code=2, head=head)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in errors, errors
    return lines[0]


class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {sys.argv[0]}.exploded; touch {Bomb.mark}",)


def test_a_malicious_checkpoint_is_refused_not_run(tmp_path, checkpoint, refused):
    Bomb.mark = tmp_path / "exploded"
    bad = tmp_path / "model"
    shutil.copytree(checkpoint, bad)
    for content in (pickle.dumps(Bomb()), None):
        if content is None:
            torch.save(Bomb(), bad / "model.safetensors")
        else:
            (bad / "model.safetensors").write_bytes(content)
        line = refused("certify", bad, "--out", tmp_path / "out", out=tmp_path / "out")
        assert "pickle" in line and "model.safetensors" in line
    torch.save(Bomb(), tmp_path / "model.pth.tar")
    line = refused("certify", tmp_path / "model.pth.tar", "--out", tmp_path / "out", out=tmp_path / "out")
    assert "pickle" in line
    assert not Bomb.mark.exists()


def test_a_corrupt_checkpoint(tmp_path, checkpoint, refused):
    bad = tmp_path / "model"
    shutil.copytree(checkpoint, bad)
    content = bytearray((bad / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (bad / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in refused("certify", bad, "--out", tmp_path / "out", out=tmp_path / "out")
    line = refused("certify", tmp_path / "nothing", "--out", tmp_path / "out", out=tmp_path / "out")
    assert "nothing" in line


def test_classes_of_model_and_data_differ(tmp_path, checkpoint, refused):
    root = write_imagenet(tmp_path / "data")
    line = refused("certify", checkpoint, "--out", tmp_path / "out", "--dataset", "imagenet", "--data.root", root)
    assert "10 classes" in line and "3" in line and "--dataset" in line


def test_a_broken_image_is_named(tmp_path, head):
    root = write_imagenet(tmp_path / "data")
    victim = sorted((root / "train").rglob("*.JPEG"))[5]
    victim.write_bytes(victim.read_bytes()[:200])
    arguments = [
        "--data.root",
        root,
        "--model.architecture",
        "resnet18",
        "--training.epochs",
        1,
        "--training.milestones",
        "",
        "--training.batch_size",
        8,
        "--data.loader_workers",
        0,
    ]
    _, errors = run(
        "train", "imagenet-gaussian-0.5", "--out", tmp_path / "out", *arguments, "--no-tracking", head=head, code=2
    )
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and str(victim) in lines[0]


def test_out_that_cannot_be_written_or_holds_another_run(tmp_path, checkpoint, refused):
    (tmp_path / "file").write_text("")
    line = refused("certify", checkpoint, "--out", tmp_path / "file" / "below")
    assert "--out" in line and "cannot be written" in line
    line = refused("train", "digits", "--out", tmp_path / "file" / "below")
    assert "--out" in line and "cannot be written" in line
    assert "--out" in refused("train", "digits")
    out = tmp_path / "out"
    out.mkdir()
    held = {"schema_version": 1, "job": "train", "identity": {"recipe": "digits", "seed": 7}}
    (out / "run.json").write_text(json.dumps(held))
    line = refused("train", "digits", "--out", out)
    assert "other settings" in line and "--overwrite" in line
    assert json.loads((out / "run.json").read_text()) == held


def test_a_damaged_cifar_file_is_named(tmp_path, refused):
    root = write_cifar10(tmp_path / "data")
    file = root / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(pickle.dumps(Path("/etc")))
    line = refused("train", "cifar10-0.5", "--data.root", root, "--out", tmp_path / "out", out=tmp_path / "out")
    assert "data_batch_3" in line


@pytest.mark.parametrize("job", [train, certify, tune, report, demo, compare], ids=lambda job: job.__name__)
def test_help_tells_every_option(job, capsys):
    with pytest.raises(SystemExit) as left:
        job.main(["--help"])
    printed = capsys.readouterr().out
    assert left.value.code == 0 and "--out" in printed and "default" in printed
    assert "annotation" not in printed and "metadata" not in printed, "Python's words for a type"
    if job is train:
        assert "--discard.p_t" in printed and "0 to 1" in printed


@pytest.mark.parametrize(
    "job, arguments, words",
    [
        (certify, ["MODEL", "--out", "s3://"], ["--out s3://", "no bucket"]),
        (certify, ["MODEL", "--out", "OUT", "--every", "1" + "0" * 25], ["every", "1 to 1000000000"]),
        (certify, ["MODEL", "--out", "OUT", "--radii", "1e308"], ["radii"]),
        (certify, ["MODEL", "--out", "OUT", "--gpus-per-actor", "inf"], ["--gpus-per-actor", "inf"]),
        (audit, ["MODEL", "--out", "OUT", "--rho", "1"], ["--rho", "1: must be a number >= 1e-300 and below 1"]),
        (audit, ["MODEL", "--out", "OUT", "--alpha", "1"], ["--alpha", "below 1"]),
        (audit, ["MODEL", "--out", "OUT"], ["no certification run"]),
        (doctor, ["--seconds", "inf", "--out", "OUT"], ["--seconds", "from 5 to 86400"]),
        (doctor, ["--seconds", "nan", "--out", "OUT"], ["--seconds", "from 5 to 86400"]),
        (doctor, ["--out", "/dev/null", "--no-tracking"], ["--out /dev/null", "cannot be written"]),
        (demo, ["--out", "/dev/null"], ["--out /dev/null", "cannot be written"]),
        (demo, ["--out", "OUT", "--n", "9" * 12], ["--n", "from 10 to 1000000000"]),
        (compare, ["--out", "OUT", "--methods", "digits,nonsense"], ["nonsense", "unknown recipe"]),
        (report, ["/nowhere", "--out", "OUT"], ["/nowhere"]),
        (report, ["runs:/0123", "--out", "OUT"], ["runs:/0123", "no store"]),
        (certify, ["runs:/0123", "--out", "OUT"], ["runs:/0123", "no store"]),
        (pack, ["--data.root", "/nowhere", "--out", "OUT"], ["/nowhere"]),
        (train, ["digits", "--out", "OUT", "--checkpoint-minutes", "inf"], ["--checkpoint-minutes"]),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else None,
)
def test_refused_options_leave_nothing_behind(job, arguments, words, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(doctor, "connect", lambda verbose: None)
    places = {"MODEL": str(checkpoint), "OUT": str(tmp_path / "out")}
    with pytest.raises(UserError) as caught:
        job.main([places.get(argument, argument) for argument in arguments])
    assert all(word in str(caught.value) for word in words), caught.value
    assert list(tmp_path.iterdir()) == []


def test_a_summary_of_something_else_is_not_taken_for_a_finished_run(checkpoint, tmp_path):
    """A copy of another folder's summary, or one that was cut: the run does not say that it is done."""
    from acr_ray.storage.summaries import read_summary

    out = Folder(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    for file in ("model.json", "model.safetensors"):
        shutil.copy(checkpoint / file, tmp_path / "checkpoint" / file)
    sha = json.loads((checkpoint / "model.json").read_text())["sha256"]
    good = {"schema_version": 1, "recipe": "digits", "model_sha256": sha, "last_epoch": {"epoch": 1}}
    out.write_json("summary.json", good)
    assert read_summary(out, "train") == good
    for bad in ({**good, "model_sha256": "0" * 64}, {"schema_version": 1, "sources": []}, [], {**good, "recipe": 7}, 3):
        out.write_json("summary.json", bad)
        with pytest.raises(UserError, match="summary.json.*--overwrite"):
            read_summary(out, "train")
    (tmp_path / "summary.json").write_text(json.dumps(good)[:-5])
    with pytest.raises(UserError, match="not valid JSON"):
        read_summary(out, "train")
    out.write_json("run.json", {"schema_version": 1, "job": "train", "identity": {"a": 1}, "tracked": True})
    options = RunOptions(str(tmp_path), tracking=False)
    with pytest.raises(UserError, match="not valid JSON"):
        open_tracked_run(options, out, "train", {"a": 1}, (), "name")
