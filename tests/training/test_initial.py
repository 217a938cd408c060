"""Fine-tuning: which weights a run begins with, at which learning rate, and that they are part of what the run is."""

import pytest
import torch

from acr_ray.data import open_images
from acr_ray.models import ModelCard, build_model, save_checkpoint
from acr_ray.settings import UserError, load_recipe
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.initial import load_initial
from acr_ray.training.loop import Trainer
from acr_ray.training.named_files import check_named
from acr_ray.training.optimizer import learning_rate


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(0, 1297, 20))


def save(path, images, classes=10, seed=7, architecture="digits_resnet"):
    model = build_model(architecture, classes, images.shape, images.mean, images.std, seed)
    names = tuple(map(str, range(classes)))
    card = ModelCard(architecture, classes, images.shape, images.mean, images.std, names, sigma=0.5)
    return save_checkpoint(Folder(path), model, card), model


def recipe_from(path, **more):
    changes = {"training.epochs": 2, "training.milestones": (), "training.e_t": 0, "training.init": str(path)}
    return load_recipe("digits-gaussian").change(changes | more)


def test_a_run_begins_with_the_weights_of_its_checkpoint(tmp_path, images):
    _, model = save(tmp_path / "before", images)
    trainer = Trainer(recipe_from(tmp_path / "before"), images, 0, Group())
    for name, tensor in trainer.module.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_for_other_classes_the_last_layer_alone_is_new(tmp_path, images):
    _, model = save(tmp_path / "before", images, classes=7)
    fresh = build_model("digits_resnet", 10, images.shape, images.mean, images.std, 3)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    (line,) = load_initial(fresh, recipe_from(tmp_path / "before"), images, {})
    assert "has 7 classes, the data 10: the last layer, network.fc, is new" in line
    for name, tensor in fresh.state_dict().items():
        kept = before if name.startswith("network.fc.") else model.state_dict()
        assert torch.equal(tensor, kept[name]), name


def test_the_content_of_the_checkpoint_is_part_of_the_run(tmp_path, images):
    recipe = recipe_from(tmp_path / "before")
    save(tmp_path / "before", images)
    contents = check_named([recipe], images)
    first = recipe.identity(contents)
    assert first["training.init"].startswith("sha256:")
    save(tmp_path / "before", images, seed=8)
    assert recipe.identity(check_named([recipe], images)) != first
    with pytest.raises(UserError, match="another model lies there than when the run began"):
        Trainer(recipe, images, 0, Group(), contents=contents)


def test_its_learning_rate_is_a_tenth_or_its_own(tmp_path):
    assert learning_rate(load_recipe("digits").training, 0) == 0.1
    assert learning_rate(recipe_from(tmp_path).training, 0) == pytest.approx(0.01)
    own = recipe_from(tmp_path, **{"training.init_learning_rate": 0.003})
    assert learning_rate(own.training, 0) == 0.003
    with pytest.raises(UserError, match="belongs to training.init"):
        load_recipe("digits").change({"training.init_learning_rate": 0.003})


def test_another_architecture_is_refused_in_one_line(tmp_path, images):
    save(tmp_path / "before", images, architecture="cifar_resnet20")
    with pytest.raises(UserError, match="is a cifar_resnet20, the recipe's a digits_resnet; --model.arch"):
        check_named([recipe_from(tmp_path / "before")], images)


def test_other_constants_are_said(tmp_path, images):
    save(tmp_path / "before", images.normalised_by((0.5,), (0.25,)))
    fresh = build_model("digits_resnet", 10, images.shape, images.mean, images.std, 3)
    (line,) = load_initial(fresh, recipe_from(tmp_path / "before"), images, {})
    assert "normalised inputs by mean (0.5,) and std (0.25,)" in line


def test_what_runs_were_called_before_these_fields_came_they_are_called_still():
    identity = load_recipe("digits").identity()
    assert not {"data.size", "data.augmentation", "data.mean", "training.init"} & set(identity)
    assert load_recipe("digits").change({"data.augmentation": "flip"}).identity()["data.augmentation"] == "flip"
