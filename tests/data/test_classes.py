"""Classes are compared by name: in another order they are taken by name, others are refused with both lists."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from acr_ray.certification.audit import merge, read_run
from acr_ray.certification.run_plan import RunPlan
from acr_ray.cli.commands.certify import parser
from acr_ray.cli.drivers.certification_inputs import open_inputs
from acr_ray.cli.parser import given
from acr_ray.data import open_images
from acr_ray.data.classes import places_of, renamed
from acr_ray.models import ModelCard, build_model, load_checkpoint, save_checkpoint
from acr_ray.settings import CertifySettings, UserError, load_recipe
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.methods import Batch, build_method
from acr_ray.training.named_files import check_named
from jobs import certify

WNIDS = tuple(f"n{1440764 + 1000 * k:08d}" for k in range(11))
NUMBERS = tuple(map(str, range(11)))


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same pictures in class folders named by WordNet ids and by numbers, "10" after "9"."""
    home = tmp_path_factory.mktemp("order")
    for k, wnid in enumerate(WNIDS):
        for split in ("train", "val"):
            folder = home / "wnid" / split / wnid
            folder.mkdir(parents=True)
            Image.new("RGB", (30, 30), (20 * k, 100, 50)).save(folder / f"{k}.png")
            shutil.copytree(folder, home / "numbers" / split / str(k))
    (home / "map.yaml").write_text("".join(f"{k}: {wnid}\n" for k, wnid in enumerate(WNIDS)))
    return home


def write_model(folder, class_names):
    shape, mean, std = (3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    card = ModelCard(
        "squeezenet1_1", len(class_names), shape, mean, std, tuple(class_names), sigma=0.25, dataset="imagenet"
    )
    save_checkpoint(Folder(folder), build_model("squeezenet1_1", len(class_names), shape, mean, std, 0), card)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), WNIDS)


def images_for(model, *arguments):
    options = parser().parse_args([str(model), "--out", "x", *map(str, arguments)])
    card = load_checkpoint(str(model))[1]
    return open_inputs(card, str(model), given(CertifySettings, options), "cpu").images


def test_the_same_pictures_have_the_same_labels_by_either_name(roots, model):
    usual = images_for(model, "--data.root", roots / "wnid")
    assert usual.class_names == WNIDS and usual.labels.tolist() == list(range(11))
    mapped = images_for(model, "--data.root", roots / "numbers", "--data.class_map", roots / "map.yaml")
    assert mapped.class_names == WNIDS and mapped.labels.tolist() == usual.labels.tolist()
    assert torch.equal(mapped.load(range(11), None), usual.load(range(11), None))


def test_other_names_are_refused_with_both_lists(roots, model):
    with pytest.raises(UserError) as caught:
        images_for(model, "--data.root", roots / "numbers")
    said = str(caught.value)
    assert f"model's are {', '.join(WNIDS)}" in said and f"data's are {', '.join(NUMBERS)}" in said
    assert f"CHECKPOINT {model}" in said and "--data.class_map FILE" in said


def test_another_order_is_taken_by_name_and_said(roots, tmp_path, capsys):
    shuffled = (*NUMBERS[5:], *NUMBERS[:5])
    images = images_for(write_model(tmp_path, shuffled), "--data.root", roots / "numbers")
    assert [images.class_names[label] for label in images.labels] == [name.split("/")[1] for name in images.names]
    assert images.labels.tolist() == [(k - 5) % 11 for k in range(11)] and images.class_names == shuffled
    assert "taken by name" in capsys.readouterr().out
    assert images.fingerprint() != open_images("imagenet", str(roots / "numbers"), "test").fingerprint()


def test_a_refused_certification_leaves_nothing(roots, model, tmp_path):
    with pytest.raises(UserError, match="classes differ"):
        certify.main(
            [str(model), "--data.root", str(roots / "numbers"), "--out", str(tmp_path / "out"), "--no-tracking"]
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", ["discard.checkpoint", "method.target"])
def test_models_that_a_recipe_names_are_compared_too(field, roots, model):
    changes = {"data.root": str(roots / "numbers"), "training.sigma": 0.25, field: str(model)}
    if field == "method.target":
        changes = {"method.name": "catrs", "discard.enabled": False, **changes}
    recipe = load_recipe("imagenet-0.25")
    for name in ("method.name",):
        recipe = recipe.change({name: changes.pop(name)}) if name in changes else recipe
    recipe = recipe.change(changes)
    with pytest.raises(UserError, match=f"{field} .*classes differ.*n01440764.*0, 1, 2"):
        check_named([recipe], open_images("imagenet", str(roots / "numbers"), "train"))
    check_named([recipe], open_images("imagenet", str(roots / "numbers"), "train", str(roots / "map.yaml")))


@pytest.fixture
def twins(tmp_path):
    """The same network twice, with its classes in the data's order and in another."""
    images, order = open_images("digits", None, "train").subset(range(60)), [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    network = build_model("digits_resnet", 10, images.shape, images.mean, images.std, 1)
    for name, names in (("usual", range(10)), ("shuffled", order)):
        if name == "shuffled":
            with torch.no_grad():
                for value in (network[-1].fc.weight, network[-1].fc.bias):
                    value.copy_(value[torch.tensor(order)].clone())
        classes = tuple(images.class_names[k] for k in names)
        card = ModelCard("digits_resnet", 10, images.shape, images.mean, images.std, classes, sigma=0.5)
        save_checkpoint(Folder(tmp_path / name), network, card)
    return images, [str(tmp_path / name) for name in ("usual", "shuffled")]


def test_a_target_s_answers_are_counted_as_the_data_s_classes_are(twins):
    images, paths = twins
    x, found = images.load(range(6), None), []
    for path in paths:
        recipe = load_recipe("digits-catrs").change({"method.target": path, "method.target_draws": 20})
        batch = Batch(
            x,
            torch.from_numpy(images.labels[:6]),
            torch.zeros_like(x),
            1,
            0.5,
            0.0,
            None,
            np.arange(6),
            10,
            images.class_names,
        )
        found.append(build_method(recipe)._target(batch))
    assert torch.equal(*found) and (found[0].sum(0) > 0).any()


def test_samples_are_discarded_by_name_too(twins):
    images, paths = twins
    counts = []
    for path in paths:
        recipe = load_recipe("digits").change({"discard.checkpoint": path, "training.e_t": 0, "discard.draws": 20})
        counts.append(Trainer(recipe, images, 0, Group()).discard_counts())
    assert np.array_equal(*counts) and 0 < counts[0].sum() < 20 * len(images)


@pytest.mark.parametrize(
    "text, said",
    [
        ("{0: a, 1: b}", None),
        ('{"0": "a"}', None),
        ("0: a\n0: b\n", "stands twice"),
        ("7: a", "there is no class '7'"),
        ("{0: a, 1: a}", "two classes are called 'a'"),
        ("{0: '1'}", "two classes are called '1'"),
        ("[1, 2]", "valid dictionary"),
        ("{0: [1]}", "valid string"),
        ("{", "not valid YAML"),
    ],
)
def test_mapping_files(text, said, tmp_path):
    (tmp_path / "map.yaml").write_text(text)
    if said is None:
        assert renamed(("0", "1"), str(tmp_path / "map.yaml"))[0] == "a"
        return
    with pytest.raises(UserError, match=f"--data.class_map {tmp_path}/map.yaml.*{said}"):
        renamed(("0", "1"), str(tmp_path / "map.yaml"))


def test_names_in_a_mapping_file_stay_text(tmp_path):
    (tmp_path / "m.yaml").write_text("01: no\n1: 1e3\n")
    assert renamed(("01", "1"), str(tmp_path / "m.yaml")) == ("no", "1e3")
    (tmp_path / "m.json").write_text(json.dumps({"01": "x"}))
    assert renamed(("01", "1"), str(tmp_path / "m.json")) == ("x", "1")
    with pytest.raises(UserError, match="cannot be read"):
        renamed(("0",), str(tmp_path / "absent"))


def test_long_lists_are_cut():
    with pytest.raises(UserError) as caught:
        places_of([f"a{i}" for i in range(1000)], [f"b{i}" for i in range(1000)], "m")
    assert "… (1000 in all)" in str(caught.value) and len(str(caught.value)) < 1000
    assert places_of("cab", "abc", "m").tolist() == [2, 0, 1]


def test_runs_whose_classes_differ_are_not_merged(tmp_path):
    for name, names, seed in (("a", "xy", 0), ("b", "yx", 1), ("c", "xy", 2)):
        settings = CertifySettings(sigma=0.25, n=10, n0=10, block=10, alpha=0.1, dataset="digits", seed=seed)
        folder = Folder(tmp_path / name).make_writable()
        RunPlan(settings, ["0"], [0], [0], 2, "0" * 64, "float32", "d", tuple(names)).save(folder)
        lines = [
            {"image": "0", "phase": p, "first": 0, "stop": 1, "counts": {"0": 10}, "seconds": 0.1}
            for p in ("select", "estimate")
        ]
        (folder / "ledger").write_text("00000000.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    runs = [read_run(Folder(tmp_path / name)) for name in "abc"]
    assert runs[0].plan.class_names == ("x", "y")
    with pytest.raises(UserError, match="its classes are y, x, but x, y in"):
        merge(runs[:2])
    assert merge([runs[0], runs[2]]).store.finished[0].n == 20


def test_options_are_the_recipe_s(roots):
    recipe = load_recipe("imagenet-0.25").change({"data.class_map": str(roots / "map.yaml")})
    assert recipe.sha256 == load_recipe("imagenet-0.25").sha256, "what it says is in the data's hash"
