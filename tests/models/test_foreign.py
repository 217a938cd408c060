"""Files of weights that other code wrote: read right, whatever they are wrapped in, or refused in one line."""

import argparse
import collections
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from acr_ray.models import build_model, load_checkpoint, save_checkpoint, state_bytes
from acr_ray.models.foreign import is_foreign
from acr_ray.models.importing import ImagesInfo, import_weights
from acr_ray.models.unwrapping import fitted, without_prefixes
from acr_ray.settings import UserError
from acr_ray.settings.imports import ImportChoices
from acr_ray.storage import Folder
from tests.models.field import CIFAR10, FieldNet, Normalization, field_model, lived_in

CIFAR = ImagesInfo("cifar10", (3, 32, 32), tuple("abcdefghij"), *CIFAR10)
OURS = ImportChoices(model="cifar_resnet20")
X = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def field_file(path, model, arch="cifar_resnet20", **more):
    """As train.py of locuslab/smoothing, and of those that follow it, write it."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9).state_dict()
    torch.save({"epoch": 90, "arch": arch, "state_dict": model.state_dict(), "optimizer": optimizer, **more}, path)
    return str(path)


def saved(path, content):
    torch.save(content, path)
    return str(path)


def refused(location, message, choices=OURS, images=CIFAR):
    with pytest.raises(UserError, match=message) as caught:
        import_weights(str(location), choices, images)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.parametrize("depth", [20, 110])
def test_the_fields_checkpoint_needs_no_model_and_is_the_same_function(tmp_path, depth):
    theirs = field_model(depth)
    location = field_file(tmp_path / "checkpoint.pth.tar", theirs, f"cifar_resnet{depth}")
    found = import_weights(location, ImportChoices(), CIFAR)
    assert (found.card.architecture, found.card.mean, found.card.std) == (f"cifar_resnet{depth}", *CIFAR10)
    with torch.no_grad():
        # Up to the last block bit for bit; PyTorch's two ways to average an 8 x 8 plane differ in the last bit.
        ours = found.model.get_submodule("network")
        inner = ours.stage3(ours.stage2(ours.stage1(torch.relu(ours.bn1(ours.conv1(found.model[0](X)))))))
        assert torch.equal(inner, theirs[1].features(theirs[0](X)))
        torch.testing.assert_close(found.model(X), theirs(X), rtol=1e-5, atol=1e-5)
        found.model.double(), theirs.double()
        torch.testing.assert_close(found.model(X.double()), theirs(X.double()), rtol=1e-12, atol=1e-12)
    assert any("normalization 0.4914,0.4822,0.4465/0.2023,0.1994,0.201 (cifar10's, as the" in t for t in found.remarks)
    assert any("sigma of its training is unknown" in text for text in found.remarks)


def test_resnet50_of_the_field_is_torchvisions(tmp_path):
    from torchvision.models import resnet50

    constants = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    theirs = nn.Sequential(Normalization(*constants), nn.DataParallel(resnet50(num_classes=5)))
    location = field_file(tmp_path / "checkpoint.pth.tar", theirs, "resnet50")
    info = ImagesInfo("imagenet", (3, 224, 224), tuple("abcde"), *constants)
    found = import_weights(location, ImportChoices(), info)
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(found.model(x), theirs.eval()(x))


def wrappings():
    """One network in every wrapping: name to what torch.save is given, and what else the user says."""
    net = lived_in(FieldNet(20))
    state, with_norm = net.state_dict(), nn.Sequential(Normalization(*CIFAR10), net)
    prefix = lambda text, values: {f"{text}{name}": tensor for name, tensor in values.items()}  # noqa: E731
    stored = {"0.means": torch.tensor(CIFAR10[0]).view(1, 3, 1, 1), "0.sds": torch.tensor(CIFAR10[1]).view(1, 3, 1, 1)}
    ours = build_model("cifar_resnet20", 10, (3, 32, 32), *CIFAR10, 0)
    from acr_ray.models.unwrapping import cifar_names

    ours.network.load_state_dict({cifar_names(name): tensor for name, tensor in state.items()})
    old = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    other = {name: tensor + 1 for name, tensor in state.items()}
    return {
        "bare": (state, {}),
        "state_dict": ({"state_dict": state}, {}),
        "model": ({"model": state, "optimizer": {}}, {}),
        "net, as kuangliu's code": ({"net": prefix("module.", state), "acc": 93.5, "epoch": 7}, {}),
        "model_state_dict": ({"model_state_dict": state, "loss": 0.3}, {}),
        "two keys": ({"model": {"state_dict": state}}, {}),
        "ema asked for": ({"state_dict": other, "state_dict_ema": state}, {"ema": True}),
        "ema not asked for": ({"state_dict": state, "ema": other}, {}),
        "ema with a key": ({"model": other, "ema": {"state_dict": prefix("module.", state)}}, {"ema": True}),
        "ema inside": ({"model": {"net": other, "model_ema": state}}, {"ema": True}),
        "averaged model": ({"ema": {"n_averaged": torch.tensor(9), **prefix("module.", state)}}, {"ema": True}),
        "DataParallel": (prefix("module.", state), {}),
        "compiled": (prefix("_orig_mod.", state), {}),
        "sequential": (with_norm.state_dict(), {}),
        "sequential of parallel": (prefix("1.module.", state), {}),
        "parallel of sequential": (prefix("module.1.", state), {}),
        "compiled parallel sequential": (prefix("_orig_mod.module.1._orig_mod.", state), {}),
        "constants stored": (prefix("1.", state) | stored, {}),
        "constants stored, parallel": (prefix("module.", prefix("1.", state) | stored), {}),
        "Lightning": ({"state_dict": prefix("model.", state), "pytorch-lightning_version": "2"}, {}),
        "ours": (ours.state_dict(), {}),
        "before PyTorch 0.4.1": (old, {}),
        "half": ({name: t.half() if t.is_floating_point() else t for name, t in state.items()}, {}),
    }


@pytest.fixture(scope="module")
def plain_logits():
    with torch.no_grad():
        return nn.Sequential(Normalization(*CIFAR10), lived_in(FieldNet(20)))(X)


@pytest.mark.parametrize("name", wrappings())
def test_wrappings_are_understood(tmp_path, name, plain_logits):
    content, more = wrappings()[name]
    location = saved(tmp_path / "weights.pth", content)
    found = import_weights(location, ImportChoices(model="cifar_resnet20", **more), CIFAR)
    with torch.no_grad():
        tolerance = 0.05 if name == "half" else 1e-4
        torch.testing.assert_close(found.model(X), plain_logits, rtol=tolerance, atol=tolerance)
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    assert "stored" not in name or any("the file's own layer" in text for text in found.remarks)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.pth.tar", "w.ckpt", "w.bin", "W.PTH", "w.safetensors", "old.pth"])
def test_endings_and_formats(tmp_path, name, plain_logits):
    state = lived_in(FieldNet(20)).state_dict()
    if name == "w.safetensors":
        save_file(state, tmp_path / name)
    else:
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=name != "old.pth")
    assert is_foreign(str(tmp_path / name))
    found = import_weights(str(tmp_path / name), OURS, CIFAR)
    with torch.no_grad():
        torch.testing.assert_close(found.model(X), plain_logits, rtol=1e-5, atol=1e-5)


def test_an_imported_folder_is_the_same_model(tmp_path):
    found = import_weights(field_file(tmp_path / "c.pth.tar", field_model()), ImportChoices(sigma=0.5), CIFAR)
    card = save_checkpoint(Folder(tmp_path / "ours"), found.model, found.card)
    assert card.sha256 == found.card.sha256 and card == found.card and card.sigma == 0.5
    assert state_bytes(load_checkpoint(str(tmp_path / "ours"))[0]) == state_bytes(found.model)


def test_what_stands_beside_the_weights_is_read_and_runs_nothing(tmp_path):
    """The field's files hold NumPy scalars and argparse.Namespace; both are answered by something that does nothing."""
    beside = {"best_acc": np.float64(61.2), "epochs": np.int64(3), "args": argparse.Namespace(noise_sd=0.25, lr=0.1)}
    location = field_file(tmp_path / "c.pth.tar", field_model(), **beside)
    assert import_weights(location, ImportChoices(), CIFAR).card.sigma == 0.25
    assert import_weights(location, ImportChoices(sigma=1.0), CIFAR).card.sigma == 1.0
    assert import_weights(field_file(tmp_path / "d.pth", field_model(), sigma=0.12), OURS, CIFAR).card.sigma == 0.12


class Loot:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Whole(nn.Linear):
    """A class of the user's."""


def test_code_is_refused_and_not_run(tmp_path):
    loot, state = tmp_path / "loot", FieldNet(20).state_dict()
    for new in (True, False):
        torch.save({"state_dict": state, "x": Loot(loot)}, tmp_path / "c.pth", _use_new_zipfile_serialization=new)
        refused(tmp_path / "c.pth", r"holds \S+; refused, not run .*torch.save\(model.state_dict\(\), 'weights.pth'\)")
    for protocol in (0, 2, 4):
        (tmp_path / "c.pth").write_bytes(pickle.dumps(Loot(loot), protocol=protocol))
        refused(tmp_path / "c.pth", "refused|damaged")
    torch.save(Whole(3, 3), tmp_path / "c.pth")
    refused(tmp_path / "c.pth", "holds tests.models.test_foreign.Whole; refused, not run")
    torch.jit.script(nn.Linear(3, 3)).save(tmp_path / "c.pt")
    refused(tmp_path / "c.pt", "TorchScript")
    assert not loot.exists()


def test_weights_only_is_never_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": {}, "x": Loot(tmp_path / "loot")}, tmp_path / "c.pth")
    refused(tmp_path / "c.pth", "refused, not run")
    assert not (tmp_path / "loot").exists()


def compressed(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    out = io.BytesIO()
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, source.read(entry))
    return out.getvalue()


def tar():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


def larger_than_the_file():
    stream = io.BytesIO()
    claimed = torch.as_strided(torch.ones(4), (2,), (1,))
    torch.save({"a": claimed}, stream)
    return stream.getvalue().replace(b"K\x02\x85", b"M\xff\xff\x85")  # the size (2,) becomes (65535,)


def torn(new):
    stream = io.BytesIO()
    torch.save({"state_dict": FieldNet(20).state_dict()}, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()[:-5000]


BROKEN = {
    "truncated": (torn(True), "truncated or damaged"),
    "truncated, old format": (torn(False), "truncated, damaged"),
    "empty": (b"", "is empty"),
    "text": (b"<html>not found</html>", "damaged"),
    "compressed": (compressed({"a": torch.zeros(10**6)}), "compressed archive"),
    "larger than the file": (larger_than_the_file(), "larger than the file|damaged"),
    "tar": (tar(), "tar format|damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_line(tmp_path, name):
    (tmp_path / "c.pth").write_bytes(BROKEN[name][0])
    refused(tmp_path / "c.pth", f"CHECKPOINT .*c.pth: .*({BROKEN[name][1]})")


def test_every_key_is_accounted_for(tmp_path):
    state = lived_in(FieldNet(20)).state_dict()
    location = tmp_path / "c.pth"
    torch.save({n: t for n, t in state.items() if not n.startswith("layer3.2.bn")}, location)
    refused(location, r"lacks stage3.2.bn1.weight, stage3.2.bn1.bias, .* and 3 more \(is --model right")
    torch.save(state | {"head.weight": torch.ones(3)}, location)
    refused(location, "has head.weight, which is not in it")
    torch.save({n: t for n, t in state.items() if n != "fc.bias"} | {"bias": torch.ones(10)}, location)
    refused(location, "lacks fc.bias; has bias, which is not in it")
    torch.save(state | {"fc.weight": torch.ones(10, 63)}, location)
    refused(location, r"other shapes .*: fc.weight \(10, 63\) for \(10, 64\)")
    torch.save(state | {"fc.bias": torch.full((10,), torch.nan)}, location)
    refused(location, "fc.bias holds values that are not finite")
    torch.save(state | {"fc.bias": torch.ones(10, dtype=torch.int64)}, location)
    refused(location, "fc.bias has type torch.int64")
    torch.save(FieldNet(110).state_dict(), location)
    refused(location, r"has stage1.3.conv1.weight, .* and \d+ more, which is not in it")


def test_another_class_count_is_said(tmp_path):
    location = field_file(tmp_path / "c.pth.tar", field_model(classes=100))
    refused(location, "it has 100 classes, the data set 10", ImportChoices())


def test_what_holds_no_weights_is_said(tmp_path):
    refused(saved(tmp_path / "a.pth", [1, 2]), "holds no weights \\(a list\\)")
    refused(saved(tmp_path / "b.pth", {"epoch": 3, "x": {}}), "no weights under state_dict, .*; its keys: epoch, x")
    refused(
        saved(tmp_path / "c.pth", {"ema": FieldNet(20).state_dict()}), "averaged weights \\(ema\\) only; give --ema"
    )
    state = FieldNet(20).state_dict()
    refused(
        saved(tmp_path / "d.pth", {"model": state}), "--ema: there are no", ImportChoices("cifar_resnet20", ema=True)
    )
    refused(saved(tmp_path / "e.pth", state), "does not say which network it is; give --model", ImportChoices())
    refused(field_file(tmp_path / "f.pth", field_model(), "lenet"), "arch is lenet, which is none of", ImportChoices())
    refused(tmp_path / "nowhere.pth", "cannot be read")


def test_a_file_never_chooses_code(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("open('ran', 'w')\ndef net(): pass\n")
    monkeypatch.chdir(tmp_path)
    refused(field_file(tmp_path / "f.pth", field_model(), "theirs:net"), "arch is theirs:net", ImportChoices())
    assert not (tmp_path / "ran").exists()


def test_normalization_is_chosen_and_compared(tmp_path):
    state = lived_in(FieldNet(20)).state_dict()
    bare = saved(tmp_path / "a.pth", state)

    def constants(location, text):
        card = import_weights(location, ImportChoices("cifar_resnet20", normalization=text), CIFAR).card
        return card.mean, card.std

    assert constants(bare, "none") == constants(bare, "inside") == ((0.0,) * 3, (1.0,) * 3)
    assert constants(bare, "0.5,0.5,0.5/0.25,0.25,0.25") == ((0.5,) * 3, (0.25,) * 3)
    assert constants(bare, "imagenet")[0] == (0.485, 0.456, 0.406)
    for text in ("0.5/0.5", "0.5,0.5,0.5", "a/b", "0.5,0.5,0.5/0,1,1", "mnist"):
        refused(bare, "--normalization", ImportChoices("cifar_resnet20", normalization=text))
    layer = {"0.mean": torch.tensor(CIFAR10[0]), "0.std": torch.tensor(CIFAR10[1])}
    within = saved(tmp_path / "b.pth", {f"1.{name}": t for name, t in state.items()} | layer)
    assert constants(within, None) == constants(within, "cifar10") == CIFAR10
    message = "its normalization layer has 0.4914.*, --normalization imagenet is 0.485"
    refused(within, message, ImportChoices("cifar_resnet20", normalization="imagenet"))


def test_no_normalization_changes_no_bit(tmp_path):
    model = import_weights(
        saved(tmp_path / "a.pth", lived_in(FieldNet(20)).state_dict()),
        ImportChoices("cifar_resnet20", normalization="none"),
        CIFAR,
    ).model
    assert torch.equal(model[0](X), X)


def test_ordered_dictionaries_and_collections_are_plain(tmp_path):
    content = collections.OrderedDict(state_dict=lived_in(FieldNet(20)).state_dict(), seen=collections.Counter("aab"))
    assert import_weights(saved(tmp_path / "a.pth", content), OURS, CIFAR).card.architecture == "cifar_resnet20"


def test_a_folder_with_an_ending_is_a_folder(tmp_path):
    (tmp_path / "mine.pt").mkdir()
    (tmp_path / "mine.pt" / "model.json").write_text("{}")
    assert not is_foreign(str(tmp_path / "mine.pt")) and not is_foreign("runs:/abc") and is_foreign("hf://a/b")


def test_a_prefix_that_belongs_to_the_network_is_not_taken_off_in_the_message(tmp_path):
    """All names of a torch.nn.Sequential may begin with 1., which is also the prefix of the field's wrapping."""
    expected = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).state_dict()
    tensors, _ = without_prefixes({"1.weight": expected["1.weight"]}, expected)
    with pytest.raises(UserError, match=r"lacks 1.bias \("):
        fitted(tensors, expected, "CHECKPOINT x.pth", "my net")
