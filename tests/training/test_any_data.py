"""Every kind of data is trained on and opened for certification; what a file names is never run."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from acr_ray.cli.drivers.certification_inputs import open_inputs
from acr_ray.cli.drivers.recipe_inputs import check_recipe, open_data
from acr_ray.settings import UserError, load_recipe
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.networks import model_card
from tests.data.test_kinds import RIGHT, odd
from tests.fakes.datasets import COUNTS, OWN, OWN_MODULE, pixels, write_npz, write_own, write_parquet


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    base = tmp_path_factory.mktemp("data")
    for name in ("npz", "parquet", "folder", "own"):
        (base / name).mkdir()
    write_npz(base / "npz")
    write_parquet(base / "parquet")
    for top in ("train", "validation"):
        for name in ("grün", "b"):
            (base / "folder" / top / name).mkdir(parents=True)
            for number, kind in enumerate(RIGHT):
                odd(kind, base / "folder" / top / name / f"{number} é.JPG")
            (base / "folder" / top / name / "link.jpg").symlink_to(base / "folder" / top / name / "1 é.JPG")
            (base / "folder" / top / name / "readme.md").write_text("no image")
    sys.path.append(str(write_own(base / "own")))
    yield {"npz": base / "npz", "parquet": base / "parquet", "folder": base / "folder", OWN: base}
    sys.path.remove(str(base / "own"))
    sys.modules.pop(OWN_MODULE, None)


def recipe_for(dataset, root, **more):
    changes = {"data.dataset": dataset, "data.root": str(root), "model.architecture": "cifar_resnet20"}
    changes |= {"training.epochs": 1, "training.milestones": (), "training.batch_size": 20, "training.sigma": 0.25}
    return load_recipe("cifar10-gaussian-0.25").change(changes | {"data.size": 16} | more)


def card_for(recipe):
    images = open_data(recipe.data.dataset, recipe.data.root, "train", None, recipe.data.options)
    return model_card(recipe, images, 0, images.fingerprint())


@pytest.mark.parametrize("dataset", ["npz", "parquet", "folder", OWN])
def test_each_kind_is_trained_on_and_then_opened_as_it_was(dataset, roots, capsys):
    recipe = recipe_for(dataset, roots[dataset], **{"data.crop": False, "data.augmentation": "flip"})
    images = open_data(dataset, recipe.data.root, "train", None, recipe.data.options)
    check_recipe(recipe, images)
    trainer = Trainer(recipe, images, 0, Group())
    trainer.run()
    assert trainer.progress.epoch == 1 and np.isfinite(trainer.progress.history[0]["loss"])
    card = model_card(recipe, images, 0, images.fingerprint())
    inputs = open_inputs(card, "run", {"root": recipe.data.root, "dataset": dataset}, "cpu")
    assert inputs.images.shape == (3, 16, 16) and inputs.settings.crop is False
    if dataset == "folder":
        assert inputs.images.class_names == ("b", "grün") and len(inputs.images) == 2 * (len(RIGHT) + 1)
        assert "2 files are left out: 2 .md (not an image's ending)" in capsys.readouterr().out


def test_code_that_a_checkpoint_names_is_not_run(roots):
    card = card_for(recipe_for(OWN, roots[OWN]))
    sys.modules.pop(OWN_MODULE)
    with pytest.raises(UserError, match=f"CHECKPOINT run: .* to run that code, name it: --dataset {OWN}"):
        open_inputs(card, "run", {}, "cpu")
    assert OWN_MODULE not in sys.modules
    assert len(open_inputs(card, "run", {"dataset": OWN}, "cpu").images) == COUNTS["test"]


def test_labels_without_names_are_the_models_and_a_line_says_so(roots, tmp_path, capsys):
    card = card_for(recipe_for("parquet", roots["parquet"]))
    images, labels = pixels("test")
    np.savez(tmp_path / "bare.npz", x=images, y=labels)
    inputs = open_inputs(card, "run", {"dataset": "npz", "root": str(tmp_path / "bare.npz")}, "cpu")
    assert inputs.images.labels.tolist() == labels.tolist()
    assert "have no names; their numbers are taken as the model's: 0 as class 0" in capsys.readouterr().out


def test_names_in_another_order_are_taken_by_name_and_other_names_are_refused(roots, tmp_path, capsys):
    card = card_for(recipe_for("npz", roots["npz"]))
    images, labels = pixels("test")
    np.savez(tmp_path / "turned.npz", x=images, y=9 - labels, class_names=np.array(card.class_names[::-1]))
    inputs = open_inputs(card, "run", {"dataset": "npz", "root": str(tmp_path / "turned.npz")}, "cpu")
    assert inputs.images.labels.tolist() == labels.tolist()
    assert "classes are in another order than the model's; they are taken by name" in capsys.readouterr().out
    np.savez(tmp_path / "other.npz", x=images, y=labels, class_names=np.array([f"thing {k}" for k in range(10)]))
    with pytest.raises(UserError, match="classes differ.*class 0.*thing 0"):
        open_inputs(card, "run", {"dataset": "npz", "root": str(tmp_path / "other.npz")}, "cpu")


def test_a_size_that_does_not_fit_says_which_would(roots):
    card = card_for(recipe_for("npz", roots["npz"], **{"data.size": 24}))
    with pytest.raises(UserError, match=r"takes images \(3, 24, 24\), parquet has \(3, 16, 16\); --data.size 24 makes"):
        open_inputs(card, "run", {"dataset": "parquet", "root": str(roots["parquet"])}, "cpu")
    more = {"dataset": "parquet", "root": str(roots["parquet"]), "size": 24}
    assert open_inputs(card, "run", more, "cpu").images.shape == (3, 24, 24)


def test_a_pack_of_a_folder_is_the_folder(roots, tmp_path):
    from acr_ray.cli.commands import pack
    from acr_ray.data import open_images

    root = shutil.copytree(roots["folder"], tmp_path / "own")
    pack.main(["--dataset", "folder", "--data.root", str(root), "--out", str(tmp_path / "packed")])
    for split in ("train", "test"):
        before, after = (open_images("folder", str(place), split) for place in (root, tmp_path / "packed"))
        assert before.fingerprint() == after.fingerprint()
        assert np.array_equal(before.load([1, 5], [1, 2]), after.load([1, 5], [1, 2]))


def test_the_recipe_for_a_folder_in_the_docs_trains(roots, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pets.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "pets.yaml")).scaled(1).change({"data.root": str(roots["folder"])})
    images = open_data("folder", recipe.data.root, "train", None, recipe.data.options)
    check_recipe(recipe, images)
    trainer = Trainer(recipe, images, 0, Group())
    trainer.run()
    assert images.shape == (3, 64, 64) and np.isfinite(trainer.progress.history[0]["loss"])
