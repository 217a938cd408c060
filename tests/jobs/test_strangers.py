"""A folder that somebody else made does not choose whom this machine talks to."""

import json
import shutil
import socket

import pytest

from acr_ray.certification.run_plan import PLAN, RunPlan
from acr_ray.data import open_images
from acr_ray.models import load_checkpoint
from acr_ray.settings import CertifySettings, UserError
from acr_ray.storage import Folder
from jobs import audit, certify, report, train, tune
from tests.fakes.models import write_digits_checkpoint
from tests.reporting.making import certificates


@pytest.fixture
def stranger(monkeypatch):
    """An address that somebody listens at; nobody has called when the test is over."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host = f"127.0.0.1:{server.getsockname()[1]}"
        yield f"s3://x/y?endpoint_override={host}&scheme=http&region=us-east-1&connect_timeout=1&request_timeout=1"
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_digits_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run_folder(tmp_path, stranger, checkpoint):
    """What a certification of ImageNet leaves, with the stranger's address as the images' folder."""
    folder, model = Folder(tmp_path / "theirs"), load_checkpoint(str(checkpoint))[1]
    folder.make_writable()
    settings = CertifySettings(sigma=0.25, n=1000, n0=100, block=100, dataset="imagenet", root=stranger)
    plan = RunPlan(
        settings,
        ["test/0", "test/1", "test/2"],
        [0, 1, 2],
        [0, 1, 2],
        10,
        model.sha256,
        "float32",
        "d",
        model.class_names,
    )
    plan.save(folder)
    certificates(tmp_path / "theirs" / "certificates.parquet", [990, 500, 800])
    (tmp_path / "theirs" / "ledger").mkdir()
    lines = []
    for phase, draws in (("select", 100), ("estimate", 1000)):
        record = {"image": "test/0", "phase": phase, "first": 0, "stop": draws // 100, "counts": {"0": draws}}
        lines.append(json.dumps(record | {"seconds": 1.0}))
    (tmp_path / "theirs" / "ledger" / "00000000.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "theirs"


def test_report(run_folder, stranger, tmp_path, capsys):
    report.main([str(run_folder), "--out", str(tmp_path / "out"), "--no-tracking"])
    assert "no pictures of images: imagenet is read from a folder; give --data.root PATH" in capsys.readouterr().out


def test_audit(run_folder, stranger, tmp_path, checkpoint):
    audit.main([str(run_folder), "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="--redraw: needs the images of .*imagenet, were in s3://x.*--data.root"):
        asked = ["--redraw", "1", "--checkpoint", str(checkpoint)]
        audit.main([str(run_folder), "--out", str(tmp_path / "out"), *asked])


def test_certify(stranger, tmp_path, checkpoint):
    theirs = tmp_path / "model"
    shutil.copytree(checkpoint, theirs)
    card = json.loads((theirs / "model.json").read_text())
    card |= {"dataset": "imagenet", "recipe": {"name": "theirs", "data": {"root": stranger}}}
    (theirs / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"data\.root = none.*--data\.root PATH.*trained on images in s3://x"):
        certify.main([str(theirs), "--out", str(tmp_path / "out"), "--no-tracking"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("job", [train, tune], ids=["train", "tune"])
@pytest.mark.parametrize("field", ["data.root", "discard.checkpoint", "discard.p_a_file", "method.target"])
def test_recipes(job, field, stranger, tmp_path):
    section, name = field.split(".")
    recipe = {"name": "theirs", "data": {"dataset": "cifar10"}, "model": {"architecture": "cifar_resnet20"}}
    recipe |= {"training": {"sigma": 0.5, "epochs": 2}, "method": {"name": "catrs"}}
    recipe[section] = {**recipe.get(section, {}), name: stranger}
    (tmp_path / "r.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match=f"{field} = s3://x.*name it again: --{field}"):
        job.main([str(tmp_path / "r.json"), "--out", str(tmp_path / "out"), "--no-tracking"])
    assert not (tmp_path / "out").exists()


def test_the_images_of_the_package_and_those_named_again_are_used(run_folder, tmp_path):
    plan = json.loads((run_folder / PLAN).read_text())
    plan["settings"] |= {"dataset": "digits"}
    (run_folder / PLAN).write_text(json.dumps(plan))
    from acr_ray.cli.drivers.thumbnails import thumbnails_for

    assert len(thumbnails_for([str(run_folder)], None, None)) == len(open_images("digits", None, "test"))
