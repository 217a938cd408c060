"""A user's own method: a file outside the package, named in the recipe as module:Class."""

import sys

import pytest
import torch

from acr_ray.data import open_images
from acr_ray.settings import Recipe, UserError, load_recipe
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.methods import build_method

OWN = """
from torch import nn
from acr_ray.training.methods import MethodLoss

class Mixed:
    def __init__(self, strength=0.5):
        self.strength = strength

    def loss(self, model, batch):
        logits = model(batch.repeated(batch.images) + batch.noise)
        noisy = nn.functional.cross_entropy(logits, batch.repeated(batch.labels))
        clean = nn.functional.cross_entropy(model(batch.images), batch.labels)
        return MethodLoss(noisy + self.strength * clean, logits, {"clean": clean})

class Lossless:
    pass

thing = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "outsiders_method.py").write_text(OWN)
    (tmp_path / "outsiders_mistake.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("outsiders_method", "outsiders_mistake"):
        sys.modules.pop(name, None)


def recipe(name, **options):
    return load_recipe("digits").change({"method.name": name, "method.options": options})


def test_trains_with_its_options_and_logs_what_it_says(folder):
    images = open_images("digits", None, "train").subset(range(0, 1200, 8))
    tiny = {"training.epochs": 2, "training.e_t": 1, "training.milestones": ()}
    settings = recipe("outsiders_method:Mixed", strength=2.0).change(tiny)
    assert build_method(settings).strength == 2.0
    trainer = Trainer(settings, images, 0, Group())
    trainer.run()
    first, last = trainer.progress.history
    assert last["clean"] > 0 and "attack_active" in last
    assert (first["forward_passes"], first["backward_passes"]) == (5 * len(images), 5 * len(images))
    assert not torch.isnan(next(trainer.module.parameters())).any()


def test_survives_files_and_belongs_to_the_runs_identity(folder):
    settings = recipe("outsiders_method:Mixed", strength=2.0)
    assert Recipe.build(settings.model_dump(mode="json")) == settings
    assert settings.sha256 != recipe("outsiders_method:Mixed", strength=3.0).sha256
    assert settings.sha256 != load_recipe("digits").sha256


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("no_module_like_this:Mixed", {}, "no_module_like_this cannot be imported (ModuleNotFoundError"),
        ("outsiders_mistake:Mixed", {}, "no_such_module_anywhere"),
        ("outsiders_method:Missing", {}, "outsiders_method.py has no class Missing"),
        ("outsiders_method:thing", {}, "has no class thing"),
        ("outsiders_method:Lossless", {}, "no method loss(model, batch)"),
        ("outsiders_method:Mixed", {"strenght": 1}, "unexpected keyword argument 'strenght'"),
    ],
)
def test_mistakes_are_one_clear_line(folder, name, options, said):
    with pytest.raises(UserError) as caught:
        build_method(recipe(name, **options))
    assert said in str(caught.value) and "method." in str(caught.value) and "\n" not in str(caught.value)


def test_a_module_that_exits_is_a_mistake_too(folder):
    (folder / "outsiders_mistake.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(UserError, match="SystemExit"):
        build_method(recipe("outsiders_mistake:Mixed"))
