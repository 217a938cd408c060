"""What a recipe names by path or module is checked before anything starts, and known by its content."""

import importlib
import shutil
import sys

import pytest

from acr_ray.data import open_images
from acr_ray.models import load_checkpoint
from acr_ray.settings import UserError, load_recipe
from acr_ray.settings.own_source import source_hashes
from acr_ray.storage import Folder, open_run
from acr_ray.training.errors import TrainingStopped
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer
from acr_ray.training.named_files import check_named, check_own_source, file_hash, warnings_of
from acr_ray.training.p_a_file import write_p_a
from acr_ray.tuning.space import parse_space
from acr_ray.tuning.trunks import estimate_key, trunk_identity
from tests.fakes.models import write_digits_checkpoint

OWN = """
import helpers_of_mine
from torch import nn
from acr_ray.training.methods import MethodLoss

class Loss:
    def loss(self, model, batch):
        logits = model(batch.repeated(batch.images) + batch.noise)
        return MethodLoss(nn.functional.cross_entropy(logits, batch.repeated(batch.labels)), logits)
"""


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(100))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A method that imports a file, which imports from a package beside it."""
    (tmp_path / "method_of_mine.py").write_text(OWN)
    (tmp_path / "helpers_of_mine.py").write_text("def f():\n    from parts_of_mine import one\n")
    (tmp_path / "parts_of_mine").mkdir()
    (tmp_path / "parts_of_mine" / "__init__.py").write_text("")
    (tmp_path / "parts_of_mine" / "one.py").write_text("from . import two\n")
    (tmp_path / "parts_of_mine" / "two.py").write_text("SHIFT = 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if "_of_mine" in name]:
        sys.modules.pop(name)


def with_checkpoint(path, sigma=0.25, **more):
    return load_recipe("digits").change(
        {
            "training.sigma": sigma,
            "discard.checkpoint": str(path),
            "training.e_t": 1,
            "training.epochs": 2,
            "training.milestones": (),
            "discard.p_t": 0.0,
            "discard.draws": 4,
            "reweigh.enabled": False,
            **more,
        }
    )


def test_a_methods_sources_are_found_through_its_imports(own):
    found = source_hashes("method_of_mine")
    assert list(found) == [
        "helpers_of_mine.py",
        "method_of_mine.py",
        "parts_of_mine.py",
        "parts_of_mine/one.py",
        "parts_of_mine/two.py",
    ]
    assert found["method_of_mine.py"] == file_hash(str(own / "method_of_mine.py"))
    (own / "parts_of_mine" / "two.py").write_text("SHIFT = 1\n")
    changed = source_hashes("method_of_mine")
    assert [name for name in found if found[name] != changed[name]] == ["parts_of_mine/two.py"]


def test_an_edited_method_is_another_run_another_trunk_and_another_trial(own, images):
    recipe = load_recipe("digits").change({"method.name": "method_of_mine:Loss"})
    before = check_named([recipe], images)
    open_run(Folder(own / "out"), "train", recipe.identity(before))
    open_run(Folder(own / "out"), "train", recipe.identity(check_named([recipe], images)))  # the same goes on
    (own / "parts_of_mine" / "two.py").write_text("SHIFT = 1\n")
    after = check_named([recipe], images)
    with pytest.raises(UserError, match=r"method.source parts_of_mine/two.py: its content has changed"):
        open_run(Folder(own / "out"), "train", recipe.identity(after))
    assert trunk_identity(recipe, {}, before) != trunk_identity(recipe, {}, after)
    trainers = [Trainer(recipe, images, 0, Group(), contents=contents) for contents in (before, after)]
    trainers[0].save(own)
    with pytest.raises(ValueError, match="another run"):
        trainers[1].load(own)


def test_a_worker_with_another_source_is_named(own, images):
    recipe = load_recipe("digits").change({"method.name": "method_of_mine:Loss"})
    contents = check_named([recipe], images)
    check_own_source(recipe, contents)
    (own / "helpers_of_mine.py").write_text("")
    with pytest.raises(UserError, match="helpers_of_mine.py is another file on worker"):
        check_own_source(recipe, contents)


def test_a_moved_checkpoint_is_the_same_run_and_a_replaced_one_is_not(tmp_path, images):
    first = write_digits_checkpoint(tmp_path / "a")
    shutil.copytree(first, tmp_path / "moved")
    other = write_digits_checkpoint(tmp_path / "b", sharper=2.0)
    recipes = [with_checkpoint(path) for path in (first, tmp_path / "moved", other)]
    identities = [recipe.identity(check_named([recipe], images)) for recipe in recipes]
    assert identities[0] == identities[1] != identities[2]
    keys = [estimate_key(recipe, check_named([recipe], images)) for recipe in recipes]
    assert keys[0] == keys[1] != keys[2]


def test_a_checkpoint_replaced_during_the_run_stops_it(tmp_path, images):
    path = write_digits_checkpoint(tmp_path / "m")
    recipe = with_checkpoint(path)
    contents = check_named([recipe], images)
    write_digits_checkpoint(path, sharper=2.0)
    with pytest.raises((UserError, TrainingStopped), match="another model lies there than when the run began"):
        Trainer(recipe, images, 0, Group(), contents=contents).run()


def test_a_checkpoint_that_cannot_serve_is_refused_at_once(tmp_path, images):
    with pytest.raises(UserError, match="no model.json there"):
        check_named([with_checkpoint(tmp_path / "nothing")], images)
    path = write_digits_checkpoint(tmp_path / "m")
    with pytest.raises(UserError, match=r"trained at sigma 0.25, training.sigma is 0.5.*any_sigma"):
        check_named([with_checkpoint(path, sigma=0.5)], images)
    check_named([with_checkpoint(path, sigma=0.5, **{"discard.any_sigma": True})], images)
    off = with_checkpoint(tmp_path / "nothing", **{"discard.enabled": False})
    assert check_named([off], images) == {}


def test_a_target_is_opened_at_once_and_its_sigma_compared(tmp_path, images):
    path = write_digits_checkpoint(tmp_path / "m")
    recipe = load_recipe("digits-catrs").change({"method.target": str(path), "method.target_sigma": 0.5})
    assert list(check_named([recipe], images)) == [str(path)]
    assert "trained at sigma 0.25" in warnings_of(recipe)[0]
    assert not warnings_of(recipe.change({"method.target_sigma": 0.25}))
    with pytest.raises(UserError, match="no model.json there"):
        check_named([recipe.change({"method.target": str(tmp_path / "none")})], images)


def test_a_p_a_file_knows_its_sigma_and_is_compared_by_content(tmp_path, images):
    recipe = load_recipe("digits").change({"training.epochs": 2, "training.e_t": 0, "training.milestones": ()})
    trainer = Trainer(recipe.change({"discard.p_t": 0.0, "reweigh.enabled": False}), images, 0, Group())
    progress = trainer.progress

    def write() -> None:
        write_p_a(Folder(tmp_path), images, trainer.recipe, progress, progress.history[-1])

    trainer.run(Hooks(after_epoch=write))
    path = tmp_path / "p_a" / "epoch_0.parquet"
    named = recipe.change({"discard.p_a_file": str(path)})
    contents = check_named([named], images)
    assert contents == {str(path): file_hash(str(path))}
    with pytest.raises(UserError, match=r"estimated at sigma 0.5, training.sigma is 1.0"):
        check_named([named.change({"training.sigma": 1.0})], images)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="has changed since the run began"):
        Trainer(named, images, 0, Group(), contents=contents).discard_counts()


def test_local_paths_become_absolute_and_uris_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("digits-catrs").change(
        {"data.root": "data", "discard.checkpoint": "s3://bucket/m", "method.target": "~/t"}
    )
    found = recipe.with_absolute_paths()
    assert found.data.root == str(tmp_path / "data") and found.discard.checkpoint == "s3://bucket/m"
    assert found.method.target.startswith("/") and "~" not in found.method.target
    assert load_recipe("digits").with_absolute_paths() == load_recipe("digits")


def test_a_space_over_paths_names_every_model(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [write_digits_checkpoint(tmp_path / name, sharper) for name, sharper in (("a", 1.0), ("b", 2.0))]
    recipe = with_checkpoint(paths[0])
    space = parse_space(["discard.checkpoint=a,../" + tmp_path.name + "/b"], recipe)
    contents = check_named(space.recipes_naming(recipe), images)
    assert len(set(contents.values())) == 2
    points = [recipe.change({"discard.checkpoint": value}) for value in space.domains[0].values]
    assert len({estimate_key(point, contents) for point in points}) == 2


def test_a_recipe_under_another_name_is_the_same_run():
    recipe = load_recipe("digits")
    assert recipe.model_copy(update={"name": "other"}).identity() == recipe.identity()


def test_whole_numbers_that_may_be_none_have_whole_ranges():
    recipe = load_recipe("digits")
    domain = parse_space(["attack.buckets=1..4"], recipe).domains[0]
    assert domain.whole and domain.every() == (1, 2, 3, 4) and isinstance(domain.at(0.3), int)
    with pytest.raises(UserError, match="must be whole numbers"):
        parse_space(["attack.buckets=1.5..4"], recipe)


def test_what_is_opened_is_what_discards(tmp_path, images):
    path = write_digits_checkpoint(tmp_path / "m")
    recipe = with_checkpoint(path)
    counts = Trainer(recipe, images, 0, Group(), contents=check_named([recipe], images)).discard_counts()
    assert counts.shape == (100,) and 0 <= counts.min() <= counts.max() <= 4
    assert load_checkpoint(str(path))[1].sigma == 0.25


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--discard.checkpoint", "CHECKPOINT .*nowhere: no model.json there"),
        ("--discard.p_a_file", "discard.p_a_file .*nowhere: cannot be read"),
    ],
)
def test_the_job_says_so_at_once_and_makes_nothing(tmp_path, monkeypatch, option, said, more):
    from jobs import train

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        train.main(["digits", "--out", "out", option, "nowhere", "--no-tracking", *more])
    assert list(tmp_path.iterdir()) == []
