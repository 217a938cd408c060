"""jobs.import and jobs.export: weights of other code in, a folder ready to upload out."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from acr_ray.cli.drivers.models import open_model
from acr_ray.models import load_checkpoint, state_bytes
from acr_ray.settings import UserError
from acr_ray.settings.imports import ImportChoices
from jobs import export
from tests.fakes.models import write_digits_checkpoint
from tests.models.field import CIFAR10, field_model

import_job = importlib.import_module("jobs.import")  # whose name is a word of Python


@pytest.fixture
def field_checkpoint(tmp_path):
    content = {"epoch": 90, "arch": "cifar_resnet20", "state_dict": field_model().state_dict(), "optimizer": {}}
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    return tmp_path / "checkpoint.pth.tar"


def run_import(*arguments):
    import_job.main(list(map(str, arguments)))


def test_the_fields_checkpoint_is_imported_by_one_command(tmp_path, field_checkpoint, capsys):
    out = tmp_path / "ours"
    run_import(field_checkpoint, "--dataset", "cifar10", "--sigma", "0.5", "--out", out)
    model, card = load_checkpoint(str(out))
    assert (card.architecture, card.sigma, card.dataset, card.mean) == ("cifar_resnet20", 0.5, "cifar10", CIFAR10[0])
    assert card.class_names[0] == "airplane"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["model_sha256"] == card.sha256 and summary["schema_version"] == 1
    assert "normalization 0.4914" in capsys.readouterr().out
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), field_model()(x), rtol=1e-5, atol=1e-5)
    run_import(field_checkpoint, "--dataset", "cifar10", "--sigma", "0.5", "--out", out)  # the same again: the same
    with pytest.raises(UserError, match="sigma was 0.5, is 0.25"):
        run_import(field_checkpoint, "--dataset", "cifar10", "--sigma", "0.25", "--out", out)


def test_an_imported_model_becomes_a_version_of_a_registered_one_once(tmp_path, field_checkpoint, store, capsys):
    from mlflow import MlflowClient

    from acr_ray.tracking.registry import find_version
    from acr_ray.tracking.runs import resolve_checkpoint

    command = (field_checkpoint, "--dataset", "cifar10", "--sigma", "0.5", "--out", tmp_path / "ours")
    run_import(*command)
    assert MlflowClient(store).search_registered_models() == []
    for _ in range(2):
        run_import(*command, "--register", "theirs", "--tracking-uri", store)
        assert "registered: models:/theirs/1" in capsys.readouterr().out
    version = find_version("models:/theirs/1", store)
    (run,) = MlflowClient(store).search_runs([MlflowClient(store).get_experiment_by_name("acr-ray").experiment_id])
    assert run.info.run_id == version.run_id and run.data.params["architecture"] == "cifar_resnet20"
    assert run.data.tags["acr_ray.job"] == "import" and run.info.status == "FINISHED"
    folder, _ = resolve_checkpoint("models:/theirs/1", store)
    assert load_checkpoint(folder)[1].sha256 == load_checkpoint(tmp_path / "ours")[1].sha256


def test_mistakes_are_one_line_and_leave_nothing(tmp_path, field_checkpoint):
    out = tmp_path / "out"
    (tmp_path / "names").write_text("a\nb\n")
    for arguments, said in [
        ([field_checkpoint], "--dataset: missing"),
        ([field_checkpoint, "--dataset", "digits"], "other shapes|is not a"),
        ([field_checkpoint, "--dataset", "cifar10", "--class-names", tmp_path / "names"], "10 classes, the data set 2"),
        (
            [field_checkpoint, "--dataset", "cifar10", "--class-names", tmp_path / "no"],
            "--class-names .*cannot be read",
        ),
        ([field_checkpoint, "--dataset", "cifar10", "--model", "resnet18"], "is not a resnet18: lacks"),
        ([tmp_path / "nowhere.pth", "--dataset", "cifar10"], "cannot be read"),
    ]:
        with pytest.raises(UserError, match=said) as caught:
            run_import(*arguments, "--out", out)
        assert "\n" not in str(caught.value) and not out.exists()


def test_a_folder_and_its_file_of_weights_are_the_same_model(tmp_path):
    """What certify opens on the way is what import writes: the same hash, so the same counts."""
    ours, card = load_checkpoint(str(write_digits_checkpoint(tmp_path / "ours")))
    torch.save({"state_dict": ours.state_dict()}, tmp_path / "w.pth")
    from acr_ray.cli.drivers.certification_inputs import images_info

    choices = ImportChoices(model="digits_resnet")
    model, found = open_model(str(tmp_path / "w.pth"), choices, lambda: images_info({"dataset": "digits"}))
    assert found.sha256 == card.sha256 and state_bytes(model) == state_bytes(ours)
    run_import(tmp_path / "w.pth", "--dataset", "digits", "--model", "digits_resnet", "--out", tmp_path / "imported")
    assert load_checkpoint(str(tmp_path / "imported"))[1].sha256 == card.sha256


def test_options_of_files_are_refused_for_folders(tmp_path):
    folder = write_digits_checkpoint(tmp_path / "ours")
    for choices in (ImportChoices(normalization="none"), ImportChoices(ema=True)):
        with pytest.raises(UserError, match="is of a file of weights; .*model.json says it"):
            open_model(str(folder), choices, lambda: None)
    with pytest.raises(UserError, match="is digits_resnet, not --model resnet18"):
        open_model(str(folder), ImportChoices(model="resnet18"), lambda: None)


def test_an_export_is_the_same_model_with_a_card_that_can_be_read(tmp_path):
    folder = write_digits_checkpoint(tmp_path / "ours")
    export.main([str(folder), "--out", str(tmp_path / "up")])
    assert load_checkpoint(str(tmp_path / "up"))[1].sha256 == load_checkpoint(str(folder))[1].sha256
    assert json.loads((tmp_path / "up" / "config.json").read_text()) == json.loads(
        (tmp_path / "up" / "model.json").read_text()
    )
    _, front, text = (tmp_path / "up" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-classification"
    assert "sigma 0.25" in text and "No certificates were exported" in text
    with pytest.raises(UserError, match="--certificates .*no summary.json"):
        export.main([str(folder), "--out", str(tmp_path / "up2"), "--certificates", str(tmp_path)])
    with pytest.raises(UserError, match="RUN: missing"):
        export.main(["--out", str(tmp_path / "up3")])


def test_names_in_a_card_are_no_markup(tmp_path):
    import dataclasses

    from acr_ray.cli.drivers.exporting import model_card_text

    card = dataclasses.replace(
        load_checkpoint(str(write_digits_checkpoint(tmp_path / "m")))[1],
        recipe={"name": "<script>x</script>\n---\n# mine"},
        dataset="[a](http://b)",
    )
    text = model_card_text(card, None)
    assert "<" not in text and "](" not in text and text.count("\n---\n") == 1


def test_the_hub_is_asked_for_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub: pip install 'acr-ray\[hub\]'"):
        open_model("hf://owner/name", ImportChoices(), lambda: None)
    with pytest.raises(UserError, match="allowed: hf://owner/name"):
        open_model("hf://owner", ImportChoices(), lambda: None)


def test_a_folder_and_a_file_of_the_hub(tmp_path, monkeypatch, field_checkpoint):
    from acr_ray.models.importing import ImagesInfo

    store = tmp_path / "hub"
    export.main([str(write_digits_checkpoint(tmp_path / "ours")), "--out", str(store / "me" / "ours")])
    (store / "me" / "theirs").mkdir()
    field_checkpoint.rename(store / "me" / "theirs" / "pytorch_model.bin")

    class EntryNotFoundError(Exception):
        """As huggingface_hub has it: the repository is there, the file is not."""

    def hf_hub_download(repository, name, revision=None):
        if not (store / repository).is_dir():
            raise OSError(f"404 {name}\nnot found")
        if not (store / repository / name).is_file():
            raise EntryNotFoundError(name)
        return str(store / repository / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    info = ImagesInfo("cifar10", (3, 32, 32), tuple("abcdefghij"), *CIFAR10)
    sha256 = load_checkpoint(str(tmp_path / "ours"))[1].sha256
    assert open_model("hf://me/ours", ImportChoices(), lambda: None)[1].sha256 == sha256
    for location in ("hf://me/theirs", "hf://me/theirs@main/pytorch_model.bin"):
        assert open_model(location, ImportChoices(), lambda: info)[1].architecture == "cifar_resnet20"
    with pytest.raises(UserError, match="cannot be fetched .OSError: 404 model.safetensors") as caught:
        open_model("hf://me/nothing", ImportChoices(), lambda: info)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no weights.bin"):
        open_model("hf://me/theirs/weights.bin", ImportChoices(), lambda: info)


OWN = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))
"""


@pytest.mark.ray
def test_a_network_of_the_users_is_certified_on_two_actors(tmp_path, monkeypatch, head):
    """By one command from the file, from the imported folder, and audited: the same counts; and exported with them."""
    from tests.fakes.jobs import run

    (tmp_path / "my_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(OWN, namespace)
    torch.manual_seed(0)
    torch.save({"model": namespace["net"](10).state_dict()}, tmp_path / "w.pth")
    few = ["--n", 200, "--block", 100, "--every", 50, "--no-tracking", "--actors", 2]
    file = ["w.pth", "--model", "my_net:net", "--dataset", "digits", "--sigma", 0.25]
    run("certify", *file, "--out", tmp_path / "a", *few, head=head, cwd=tmp_path)
    run("import", *file, "--out", tmp_path / "m", cwd=tmp_path)
    _, err = run("certify", tmp_path / "m", "--out", tmp_path / "b", *few, head=head, cwd=tmp_path, code=2)
    assert "imported only if you name it" in err
    run("certify", tmp_path / "m", "--model", "my_net:net", "--out", tmp_path / "b", *few, head=head, cwd=tmp_path)
    one, other = (tmp_path / name / "certificates.tsv" for name in "ab")
    columns = lambda path: [line.split("\t")[:5] for line in path.read_text().splitlines()]  # noqa: E731
    assert columns(one) == columns(other) and len(columns(one)) == 11
    asked = ["--redraw", 3, "--checkpoint", "w.pth", "--model", "my_net:net"]
    out, _ = run("audit", tmp_path / "a", *asked, "--out", tmp_path / "audit", cwd=tmp_path)
    assert out.count("agrees") == 3
    arguments = ["--model", "my_net:net", "--certificates", tmp_path / "b", "--out", tmp_path / "up"]
    run("export", tmp_path / "m", *arguments, cwd=tmp_path)
    text = (tmp_path / "up" / "README.md").read_text()
    assert "python -m jobs.certify . --model my_net:net --dataset digits --every 50 --sigma 0.25 --n 200" in text
    assert "| 0.25 |" in text and "my_net.py" in text
    (tmp_path / "my_net.py").write_text(OWN + "# another\n")
    again = ["certify", tmp_path / "m", "--model", "my_net:net", "--out", tmp_path / "b", *few]
    out, err = run(*again, head=head, cwd=tmp_path, code=2)
    assert "arithmetic was" in err and "my_net.py has changed" in out
