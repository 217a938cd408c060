"""Networks that are not ours: the user's own module:function, and timm's."""

import importlib.util
import json
import sys

import pytest
import torch

from acr_ray.models import ModelCard, build_model, load_checkpoint, save_checkpoint, state_bytes
from acr_ray.models.checkpoint import sources_of
from acr_ray.models.importing import ImagesInfo, import_weights
from acr_ray.settings import UserError
from acr_ray.settings.imports import ImportChoices
from acr_ray.storage import Folder

OWN = """
from torch import nn
from outsiders_layers import head

def net(num_classes):
    return nn.Sequential(nn.Flatten(), head(64, num_classes))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()

class Net(nn.Linear):
    def __init__(self, **options):
        super().__init__(64, options["num_classes"])
    def forward(self, x):
        return super().forward(x.flatten(1))

def text():
    return "no network"

def broken():
    raise KeyError("weights")

def flat():
    return nn.Flatten()

def two():
    class Two(nn.Module):
        def forward(self, x):
            return x, x
    return Two()
"""
CARD = ModelCard("outsiders_net:net", 10, (1, 8, 8), (0.0,), (1.0,), tuple("0123456789"), sigma=0.5, dataset="digits")
DIGITS = ImagesInfo("digits", (1, 8, 8), tuple("0123456789"), (0.3,), (0.4,))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "outsiders_net.py").write_text(OWN)
    (tmp_path / "outsiders_layers.py").write_text("from torch import nn\nhead = nn.Linear\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(entry for entry in sys.path if entry)])
    yield tmp_path
    for name in ("outsiders_net", "outsiders_layers"):
        sys.modules.pop(name, None)


def build(name, classes=10):
    return build_model(f"outsiders_net:{name}", classes, (1, 8, 8), (0.0,), (1.0,), 0)


@pytest.mark.parametrize("name", ["net", "fixed", "Net"])
def test_a_function_or_class_of_the_users_is_a_network(folder, name):
    model = build(name)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert state_bytes(model) == state_bytes(build(name))  # the seed decides the first weights


@pytest.mark.parametrize(
    ("name", "classes", "said"),
    [
        ("missing", 10, "outsiders_net.py has no function missing"),
        ("text", 10, "returns a str; expected a torch.nn.Module"),
        ("broken", 10, "fails .KeyError: 'weights'."),
        ("flat", 10, r"gives \(1, 64\) for one image of shape \(1, 8, 8\); expected logits of shape \(1, 10\)"),
        ("two", 10, "gives tuple for one image"),
        ("fixed", 3, r"gives \(1, 10\) .* expected logits of shape \(1, 3\)"),
    ],
)
def test_mistakes_are_one_line(folder, name, classes, said):
    with pytest.raises(UserError, match=said) as caught:
        build(name, classes)
    assert "\n" not in str(caught.value) and "model.architecture" in str(caught.value)


def test_a_folder_never_chooses_code_to_import(folder, tmp_path):
    """Somebody may have given it: its network is imported only if the user's command names it, too."""
    model = CARD.build()
    card = save_checkpoint(Folder(tmp_path / "m"), model, CARD)
    assert state_bytes(load_checkpoint(str(tmp_path / "m"), "outsiders_net:net")[0]) == state_bytes(model)
    ran = tmp_path / "ran"
    (tmp_path / "outsiders_trap.py").write_text(f"open({str(ran)!r}, 'w')\n{OWN}")
    values = json.loads((tmp_path / "m" / "model.json").read_text()) | {"architecture": "outsiders_trap:net"}
    (tmp_path / "m" / "model.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="code of yours, outsiders_trap:net; .* --model outsiders_trap:net"):
        load_checkpoint(str(tmp_path / "m"))
    with pytest.raises(UserError, match="is outsiders_trap:net, not --model outsiders_net:net"):
        load_checkpoint(str(tmp_path / "m"), "outsiders_net:net")
    assert not ran.exists() and card.sha256
    load_checkpoint(str(tmp_path / "m"), "outsiders_trap:net")
    assert ran.exists()
    sys.modules.pop("outsiders_trap")


def test_the_card_knows_the_files_that_the_network_is_made_of(folder):
    torch.save(build("net").network.state_dict(), "w.pth")
    found = import_weights("w.pth", ImportChoices("outsiders_net:net"), DIGITS)
    assert sorted(found.card.sources) == ["outsiders_layers.py", "outsiders_net.py"]
    assert found.card.mean == (0.0,) and any("module:function normalises itself" in text for text in found.remarks)


def test_what_another_environment_has_installed_is_no_source_of_the_users(folder, monkeypatch):
    """Hashing all of PyTorch, say, took minutes."""
    installed = folder / "env" / "site-packages"
    installed.mkdir(parents=True)
    (folder / "outsiders_layers.py").rename(installed / "outsiders_layers.py")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    assert sorted(sources_of("outsiders_net:net")) == ["outsiders_net.py"]


def test_cards_of_other_networks_are_written_as_before(tmp_path):
    card = ModelCard("digits_resnet", 10, (1, 8, 8), (0.3,), (0.4,), tuple("0123456789"))
    save_checkpoint(Folder(tmp_path), card.build(), card)
    assert "sources" not in json.loads((tmp_path / "model.json").read_text())


def test_timm_is_asked_for_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm: pip install 'acr-ray\[timm\]'"):
        build_model("timm:resnet18", 10, (3, 32, 32), (0.5,) * 3, (0.5,) * 3, 0)


@pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="needs timm (the extra of that name)")
def test_networks_of_timm(tmp_path):
    shape, mean = (3, 32, 32), (0.5,) * 3
    model = build_model("timm:resnet10t", 4, shape, mean, mean, 0)
    torch.save({"state_dict": model.network.state_dict()}, tmp_path / "w.pth")
    info = ImagesInfo("mine", shape, tuple("abcd"), mean, mean)
    found = import_weights(str(tmp_path / "w.pth"), ImportChoices("timm:resnet10t"), info)
    assert state_bytes(found.model) == state_bytes(model) and not found.card.sources
    save_checkpoint(Folder(tmp_path / "m"), found.model, found.card)
    assert load_checkpoint(str(tmp_path / "m"))[1].architecture == "timm:resnet10t"
    for name in ("timm:hf-hub:a/b", "timm:local-dir:/tmp", "timm:no_such_net"):
        with pytest.raises(UserError, match="has no such network"):
            build_model(name, 4, shape, mean, mean, 0)
