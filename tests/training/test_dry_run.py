"""jobs.train --dry-run: counts equal those of a real run, and nothing is written."""

import numpy as np
import pytest

from acr_ray.data import open_images
from acr_ray.settings import UserError, load_recipe
from acr_ray.training.dry_run import inputs_measured, measure, plan_of
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from jobs import train
from tests.fakes.images import write_imagenet


@pytest.mark.parametrize("changes", [{}, {"reweigh.enabled": False}, {"attack.enabled": False, "training.m": 2}])
def test_planned_counts_are_those_of_a_run(changes):
    images = open_images("digits", None, "train").subset(range(100))
    base = {"training.epochs": 4, "training.e_t": 2, "training.milestones": (), "reweigh.every": 1, "discard.p_t": 0.0}
    recipe = load_recipe("digits").change(base | changes)
    trainer = Trainer(recipe, images, 0, Group())
    trainer.run()
    plan = plan_of(recipe, len(images))
    backward = sum(record["backward_passes"] for record in trainer.progress.history)
    forward = sum(record["forward_passes"] for record in trainer.progress.history)
    attacked = sum(np.sum(record.get("attack_active", 0)) for record in trainer.progress.history)
    attacked = round(attacked * len(images) * recipe.training.m)
    assert plan.rows + attacked <= backward <= plan.rows + plan.attack_rows
    assert plan.rows + plan.p_a_rows + attacked <= forward <= plan.rows + plan.p_a_rows + plan.attack_rows
    if not recipe.attack.enabled:
        assert (forward, backward) == (plan.rows + plan.p_a_rows, plan.rows)
    assert plan.steps_an_epoch == -(-100 // recipe.inputs_per_step)


def test_a_step_is_measured_without_training_anything():
    images = open_images("digits", None, "train").subset(range(100))
    found = measure(load_recipe("digits"), images, "cpu")
    assert found.rows == 256 and found.parameters == 7418
    assert min(found.train, found.attack, found.p_a, found.load) > 0 and found.row_mb >= 0
    assert found.state_mb == pytest.approx(3 * 4 * 7418 / 1e6)


def test_a_gpu_is_given_what_one_worker_passes_at_a_time():
    """Four GPUs that share a batch in two parts each: the whole batch on one of them would not fit."""
    images = open_images("digits", None, "train")
    recipe = load_recipe("digits").change({"training.batch_size": 1024, "training.m": 4})
    assert recipe.inputs_per_step == 256
    assert inputs_measured(recipe, images, "cuda", 1) == 256
    assert inputs_measured(recipe, images, "cuda", 3) == 86
    assert inputs_measured(recipe.change({"training.accumulate": 2}), images, "cuda", 4) == 32
    assert inputs_measured(recipe, images, "cuda", 300) == 1
    assert inputs_measured(recipe, images, "cpu", 4) == 256, "a CPU measures what it can in a moment"


@pytest.mark.slow
def test_imagenets_recipe_is_planned_without_the_model_that_it_will_need(tmp_path, capsys, monkeypatch):
    root = write_imagenet(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    argv = ["imagenet-0.5", "--data.root", str(root), "--dry-run", "--workers", "2", "--model.architecture", "resnet18"]
    train.main([*argv, "--discard.draws", "4", "--training.batch_size", "8"])
    printed = capsys.readouterr().out
    for text in (
        "90 epochs of 2 steps of 8 noise draws",
        "p_A >= 0.2 of 4 draws by a model that you give",
        "at most 48",
        "at most T = 2 steps of 1.0",
        "2,160 noise draws",
        "missing",
        "--discard.checkpoint DIR",
        "nothing was trained",
    ):
        assert text in printed, text
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with pytest.raises(UserError, match="data.root"):
        train.main(["imagenet-0.5", "--dry-run"])
