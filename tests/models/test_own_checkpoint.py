"""CHECKPOINT may be ``module:function``: the user's own code gives the network with its weights."""

import importlib

import pytest

from acr_ray.cli.drivers.models import is_own_model, open_model
from acr_ray.models import state_bytes
from acr_ray.models.importing import ImagesInfo
from acr_ray.settings import UserError
from acr_ray.settings.imports import ImportChoices
from tests.fakes.mine import write_mine

IMAGES = ImagesInfo("digits", (3, 8, 8), ("a", "b", "c", "d"), (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return write_mine(tmp_path)


def opened(mine, **choices):
    return open_model(f"{mine}:network", ImportChoices(**choices), lambda: IMAGES)


def test_its_weights_are_those_that_the_function_gives(mine):
    model, card = opened(mine)
    own = importlib.import_module(mine).network()
    assert model.get_submodule("network").state_dict().keys() == own.state_dict().keys()
    assert state_bytes(model.get_submodule("network")) == state_bytes(own)
    assert (card.architecture, card.mean, card.std) == (f"{mine}:network", (0.0,) * 3, (1.0,) * 3)
    assert card.sigma is None and set(card.sources) == {f"{mine}.py"} and len(card.sha256) == 64
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert opened(mine)[1] == card  # so a run can go on


def test_a_normalization_is_put_before_it(mine):
    assert opened(mine, normalization="imagenet")[1].mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "name, choices, said",
    [
        ("{mine}:network", {"model": "resnet50"}, "--model: is of a file of weights"),
        ("{mine}:network", {"ema": True}, "--ema: is of a file of weights"),
        ("{mine}:nothing", {}, "has no function nothing"),
        ("{mine}:images", {}, "fails (TypeError"),
        ("no_such_module:network", {}, "module no_such_module cannot be imported"),
    ],
)
def test_what_it_cannot_be_is_one_line(mine, name, choices, said):
    with pytest.raises(UserError) as caught:
        open_model(name.format(mine=mine), ImportChoices(**choices), lambda: IMAGES)
    assert said in str(caught.value)


def test_a_path_of_that_name_is_a_path(mine, tmp_path):
    assert is_own_model(f"{mine}:network")
    (tmp_path / "a:b").mkdir()
    assert not is_own_model("a:b") and not is_own_model("runs:/0123") and not is_own_model("s3://bucket/run")
    with pytest.raises(UserError, match=r"no model\.json"):
        open_model("a:b", ImportChoices(), lambda: IMAGES)
