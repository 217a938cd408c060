"""CAT-RS with a checkpoint for its target: the smoothed prediction of another network."""

import numpy as np
import pytest
import torch

from acr_ray.data import batches, open_images
from acr_ray.models import ModelCard, build_model, load_checkpoint, save_checkpoint
from acr_ray.settings import UserError
from acr_ray.settings.methods import CatrsSettings
from acr_ray.smoothing.noise import standard_normal
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer
from acr_ray.training.methods import Batch, Passes, build_method
from acr_ray.training.methods.catrs import Catrs
from tests.training.methods.making import batch, network
from tests.training.methods.test_on_digits import recipe, same, weights


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(0, 1200, 6))


@pytest.fixture(scope="module")
def checkpoint(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    trainer = Trainer(recipe("gaussian", {"training.epochs": 6, "training.e_t": 5}), images, 1, Group())
    trainer.run()
    card = ModelCard(
        "digits_resnet", 10, images.shape, images.mean, images.std, images.class_names, sigma=0.5, dataset="digits"
    )
    save_checkpoint(Folder(str(folder)), trainer.module, card)
    return str(folder)


def test_the_target_is_the_share_of_draws_of_each_class(images, checkpoint):
    settings = recipe("catrs", {"method.target": checkpoint, "method.target_draws": 8, "method.target_sigma": 0.3})
    x, y = next(batches(images, [(np.arange(5), None)], 0))
    seeds = np.arange(5, dtype=np.int64) + 10
    given = Batch(x, torch.as_tensor(y), 0.5 * torch.randn(20, *images.shape), 4, 0.5, 0.0, None, seeds, 10)
    found = build_method(settings)._target(given)
    model, _ = load_checkpoint(checkpoint)
    for i in range(5):
        noise = 0.3 * standard_normal([int(seeds[i])], 8, images.shape)
        with torch.no_grad():
            classes = model(x[i] + noise).argmax(1)
        torch.testing.assert_close(found[i], torch.bincount(classes, minlength=10) / 8)
    assert found.max() > 0.5, "a trained network is surer than chance"


@pytest.mark.parametrize("confidence", ["own", "target"])
def test_resumes_bit_for_bit_and_costs_the_same(images, checkpoint, tmp_path, confidence):
    settings = recipe("catrs", {"method.target": checkpoint, "method.confidence": confidence})
    whole = Trainer(settings, images, 0, Group())
    whole.run(Hooks(after_epoch=lambda: whole.save(tmp_path) if whole.progress.epoch == 1 else None))
    resumed = Trainer(settings, images, 0, Group())
    resumed.load(tmp_path)
    resumed.run()
    assert same(weights(resumed), weights(whole))
    record = whole.progress.history[0]
    stated = build_method(settings).passes(len(images), settings.training.m)
    assert Passes(record["forward_passes"], record["backward_passes"]) == stated


def test_another_number_of_classes_is_refused(tmp_path):
    card = ModelCard("cifar_resnet20", 3, (2, 8, 8), (0.5, 0.5), (1.0, 1.0), ("a", "b", "c"))
    model = build_model("cifar_resnet20", 3, (2, 8, 8), (0.5, 0.5), (1.0, 1.0), 0)
    save_checkpoint(Folder(str(tmp_path)), model, card)
    model = network()
    with pytest.raises(UserError, match="has 3 classes, the data 4"):
        Catrs(CatrsSettings(target=str(tmp_path))).loss(model, batch(model))


def test_a_missing_checkpoint_is_a_users_mistake(tmp_path):
    model = network()
    with pytest.raises(UserError, match="nowhere"):
        Catrs(CatrsSettings(target=str(tmp_path / "nowhere"))).loss(model, batch(model))
