import dataclasses
import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save

from acr_ray.models import ModelCard, build_model, load_checkpoint, load_state, save_checkpoint, state_bytes
from acr_ray.models.state import read_tensors
from acr_ray.settings import UserError
from acr_ray.storage import Folder

KEPT = Path(__file__).parent / "kept"
CARD = ModelCard(
    architecture="digits_resnet",
    num_classes=10,
    shape=(1, 8, 8),
    mean=(0.3054,),
    std=(0.3759,),
    class_names=tuple("0123456789"),
    sigma=0.5,
    dataset="digits",
    recipe={"name": "digits", "training": {"milestones": (30, 50)}},
    data_fingerprint="f" * 64,
    seed=3,
    code_version="0.1",
)


def trained():
    """A model whose statistics and weights aren't those of any fresh one."""
    model = CARD.build(seed=1)
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(5)))
    return model


@pytest.fixture
def saved(tmp_path):
    card = save_checkpoint(Folder(tmp_path / "run" / "checkpoint"), trained(), CARD)
    return tmp_path / "run" / "checkpoint", card


def test_round_trip(saved):
    folder, card = saved
    for location in (folder, folder.parent, f"{folder}/", folder.as_uri(), folder.parent.as_uri()):
        model, found = load_checkpoint(str(location))
        assert found == card
        assert state_bytes(model) == state_bytes(trained()) == (folder / "model.safetensors").read_bytes()
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
    assert card.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert card == dataclasses.replace(CARD, sha256=card.sha256, recipe=card.recipe)
    assert card.recipe["training"]["milestones"] == [30, 50]  # as JSON has it
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_statistics_of_batch_norm_travel(saved):
    state = load_checkpoint(str(saved[0]))[0].state_dict()
    assert int(state["network.bn1.num_batches_tracked"]) == 3
    assert not torch.equal(state["network.bn1.running_mean"], torch.zeros(16))


def test_equal_weights_have_equal_hashes_whatever_their_layout(tmp_path, saved):
    model = trained().to(memory_format=torch.channels_last)
    assert state_bytes(model) == state_bytes(trained())
    assert save_checkpoint(Folder(tmp_path / "other"), model, CARD).sha256 == saved[1].sha256


def test_half_precision_is_stored_as_float32(tmp_path):
    card = dataclasses.replace(CARD, mean=(0.5,), std=(0.25,))
    half = card.build().half()
    save_checkpoint(Folder(tmp_path), half, card)
    loaded = load_checkpoint(str(tmp_path))[0]
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.network.fc.weight, half.network.fc.weight.float())


def test_saving_leaves_the_model_alone(tmp_path):
    model = trained()
    before = state_bytes(model)
    save_checkpoint(Folder(tmp_path), model, CARD)
    assert state_bytes(model) == before and model.training and all(p.requires_grad for p in model.parameters())


def test_a_model_that_is_not_the_cards_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not the model that the card describes"):
        save_checkpoint(Folder(tmp_path), trained(), dataclasses.replace(CARD, num_classes=2, class_names=("a", "b")))
    with pytest.raises(ValueError, match="not the model that the card describes"):
        save_checkpoint(Folder(tmp_path), torch.nn.Sequential(trained()), CARD)
    assert not list(tmp_path.iterdir())


def test_the_description_comes_last(tmp_path, monkeypatch):
    """A process killed in between leaves nothing that loads."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(Folder(tmp_path), trained(), CARD)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(UserError, match="no model.json"):
        load_checkpoint(str(tmp_path))


def test_kept_files_of_old_versions_still_load():
    """Written by schema_version 1; never regenerate these files."""
    model, card = load_checkpoint(str(KEPT / "v1"))
    assert (card.architecture, card.sigma, card.seed) == ("digits_resnet", 0.5, 3)
    with torch.no_grad():
        logits = model(torch.linspace(0, 1, 64).view(1, 1, 8, 8))[0]
    torch.testing.assert_close(logits, torch.tensor(json.loads((KEPT / "v1_logits.json").read_text())))


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model"))
    return stream.getvalue()


def _torch_save(new: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(trained().state_dict(), stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


def _changed(**changes) -> bytes:
    state = {name: tensor.clone() for name, tensor in trained().state_dict().items()}
    for name, change in changes.items():
        name = name.replace("__", ".")
        state[name] = change(state[name]) if name in state else change(None)
        if state[name] is None:
            del state[name]
    return save(state)


def _header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


GOOD = state_bytes(trained())
BAD_WEIGHTS = {
    "pickle": (pickle.dumps({"a": 1}), "is a pickle; refused, not run"),
    "old pickle": (pickle.dumps({"a": 1}, protocol=0), "is a pickle; refused, not run"),
    "torch.save": (_torch_save(True), "is a pickle; refused, not run"),
    "legacy torch.save": (_torch_save(False), "is a pickle; refused, not run"),
    "zip": (_zip(), "is a pickle; refused, not run"),
    "tar": (_tar(), "is a pickle; refused, not run"),
    "empty": (b"", "not a safetensors file"),
    "text": (b"<html>nothing here</html>", "not a safetensors file"),
    "truncated weights": (GOOD[:-100], "truncated"),
    "truncated header": (GOOD[:100], "truncated"),
    "truncated length": (GOOD[:5], "not a safetensors file"),
    "longer": (GOOD + b"\0", "damaged safetensors file"),
    "bad header": (_header(b"{]" + b" " * 100), "damaged safetensors file"),
    "odd header": (_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":"xy"}}'), "damaged safetensors file"),
    "huge shape": (_header(b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}') + b"abcd", "damaged"),
    "huge offsets": (_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999]}}'), "truncated"),
    "deep header": (_header(b'{"a":' * 5000), "damaged safetensors file"),
    "wrong shape": (_changed(network__fc__bias=lambda t: t[:5].clone()), "network.fc.bias has shape \\(5,\\)"),
    "wrong type": (_changed(network__fc__bias=lambda t: t.double()), "network.fc.bias has type torch.float64"),
    "missing": (_changed(network__fc__bias=lambda t: None), "tensor network.fc.bias of the architecture is missing"),
    "unknown": (_changed(extra=lambda t: torch.ones(1)), "tensor extra is not in the architecture"),
    "nan": (_changed(network__fc__bias=lambda t: t * float("nan")), "network.fc.bias holds values that are not finite"),
    "inf": (_changed(network__bn1__running_var=lambda t: t / 0), "running_var holds values that are not finite"),
    "other mean": (_changed(normalize__mean=lambda t: t + 0.1), "normalize.mean differs from what model.json says"),
}


@pytest.mark.parametrize(("content", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_refused_even_where_the_hash_agrees(saved, content, message):
    folder, _ = saved
    (folder / "model.safetensors").write_bytes(content)
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(values | {"sha256": hashlib.sha256(content).hexdigest()}))
    _refused(folder, f"model.safetensors: .*{message}")


@pytest.mark.parametrize("place", [8, 9, 500, 5000, -1])
def test_one_changed_bit_is_refused(saved, place):
    folder, _ = saved
    content = bytearray(GOOD)
    content[place] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    _refused(folder, "model.safetensors: ")


BAD_CARDS = {
    "not JSON": (b"{", "not valid JSON"),
    "not text": (b"\xff\xfe\x00", "not text in UTF-8"),
    "a pickle": (pickle.dumps({"a": 1}), "not text in UTF-8"),
    "too deep": (b"[" * 200_000, "nested too deep|not valid JSON"),
    "a list": (b"[]", "not the description of a model"),
    "no version": ({"schema_version": None}, "schema_version = None"),
    "version 0": ({"schema_version": 0}, "schema_version = 0"),
    "version true": ({"schema_version": True}, "schema_version = True"),
    "future": ({"schema_version": 2, "new": 1}, "schema_version = 2: written by a newer version"),
    "unknown field": ({"colour": 1}, "colour: unexpected"),
    "unknown architecture": ({"architecture": "resnet51"}, "resnet51: unknown; allowed: digits_resnet"),
    "other architecture": ({"architecture": "cifar_resnet20"}, "is missing"),
    "no architecture": ({"architecture": None}, "architecture: "),
    "classes": ({"num_classes": 9}, "10 class names for 9 classes"),
    "many classes": ({"num_classes": 10**12}, "num_classes: "),
    "huge shape": ({"shape": [1, 10**6, 10**6]}, "shape.1: "),
    "other shape": ({"shape": [1, 16, 16]}, "does not fit"),
    "two sides": ({"shape": [1, 8]}, "shape"),
    "channels": ({"mean": [0.1, 0.2]}, "mean and std of 2 and 1 channels"),
    "std": ({"std": [0.0]}, "std.0: "),
    "sigma": ({"sigma": -1}, "sigma"),
    "sigma NaN": ({"sigma": float("nan")}, "sigma"),
    "hash": ({"sha256": "0" * 64}, "SHA-256 is .* but model.json says 0000"),
    "no hash": ({"sha256": ""}, "SHA-256 is"),
}


@pytest.mark.parametrize(("change", "message"), BAD_CARDS.values(), ids=BAD_CARDS)
def test_bad_descriptions_are_refused(saved, change, message):
    path = saved[0] / "model.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change).encode()
    path.write_bytes(change)
    _refused(saved[0], message)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "checkpoint.pth.tar", "model.bin", "MODEL.PTH"])
def test_a_pickle_given_in_place_of_a_folder(tmp_path, name):
    (tmp_path / name).write_bytes(_torch_save(True))
    _refused(tmp_path / name, "is a pickle; refused, not run")
    _refused(tmp_path, f"no model.json; {name} is a pickle; refused, not run")


class Loot:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_the_files_is_run(saved, tmp_path):
    loot = tmp_path / "loot"
    for name in ("model.safetensors", "model.json"):
        path = saved[0] / name
        good = path.read_bytes()
        path.write_bytes(pickle.dumps(Loot(loot)))
        _refused(saved[0], name)
        path.write_bytes(good)
    assert not loot.exists()
    load_checkpoint(str(saved[0]))


def test_missing_things_are_named(saved, tmp_path):
    folder, _ = saved
    _refused(tmp_path / "nowhere", "no model.json there, nor in checkpoint/")
    _refused(folder / "model.safetensors", "is a file; allowed: the folder that holds")
    (folder / "model.safetensors").unlink()
    _refused(folder, "model.safetensors: cannot be read")
    _refused("nosuch://somewhere/else", "not a path or a URI that can be opened")


def test_a_store_that_fails_is_named(saved, monkeypatch):
    def down(*_):
        raise OSError("connection refused")

    monkeypatch.setattr(Folder, "read_bytes", down)
    _refused(saved[0], "model.json: cannot be read \\(connection refused\\)")
    monkeypatch.setattr(Folder, "is_file", down)
    _refused(saved[0], "^CHECKPOINT .*: cannot be read \\(connection refused\\)")


def test_cards_check_themselves():
    for change in ({"num_classes": 3}, {"std": (0.0,)}, {"sigma": 0.0}, {"shape": (0, 8, 8)}):
        with pytest.raises(ValidationError):
            dataclasses.replace(CARD, **change)
    with pytest.raises(dataclasses.FrozenInstanceError):
        CARD.sigma = 1.0


def test_state_round_trip_keeps_types_and_leaves_a_refusing_model_alone():
    model, other = trained(), CARD.build(seed=9)
    untouched = state_bytes(other)
    for content in (b"", pickle.dumps(1), _changed(network__fc__bias=lambda t: t[:5].clone()), GOOD[:-1]):
        with pytest.raises(UserError, match="^snapshot 7: "):
            load_state(other, content, "snapshot 7")
    assert state_bytes(other) == untouched
    load_state(other, state_bytes(model), "snapshot 7")
    assert state_bytes(other) == state_bytes(model)
    halves = state_bytes(CARD.build().half())
    assert {t.dtype for t in read_tensors(halves, "x").values()} == {torch.float16, torch.int64}


def test_a_header_that_starts_like_a_pickle_is_no_pickle():
    """The first bytes of a safetensors file are a length: 0x280 bytes of header look like a pickle's b'\\x80\\x02'."""
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x280)
    assert read_tensors(_header(header) + b"\7", "x")["a"].tolist() == [7]


def test_resnet50_round_trip(tmp_path):
    shape, mean, std = (3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    card = ModelCard("resnet50", 4, shape, mean, std, tuple("abcd"))
    model = build_model("resnet50", 4, shape, mean, std, 0)
    save_checkpoint(Folder(tmp_path), model, card)
    x = torch.rand(1, *shape)
    with torch.no_grad():
        assert torch.equal(load_checkpoint(str(tmp_path))[0](x), model.eval()(x))


def _refused(location, message):
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(str(location))
    assert "\n" not in str(caught.value)
