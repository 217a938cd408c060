"""The training loop without Ray: resume, records, p_A estimates, and how it ends when it can't go on."""

import json

import numpy as np
import pytest
import torch

from acr_ray.data import batches, open_images
from acr_ray.settings import load_recipe
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.training.estimate import label_counts
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer, TrainingStopped

SHORT = {"training.epochs": 6, "training.e_t": 2, "training.milestones": (4,), "reweigh.every": 2}


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(0, 1297, 6))


def short(**more):
    return load_recipe("digits").change(SHORT | more)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def without_seconds(history):
    return [{k: v for k, v in record.items() if k not in ("seconds", "timing")} for record in history]


@pytest.fixture(scope="module")
def undisturbed(images):
    trainer = Trainer(short(), images, 3, Group())
    trainer.run()
    return trainer


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_resumed_run_is_the_same_run(images, undisturbed, tmp_path, stop):
    class Stop(Exception):
        pass

    def interrupt():
        if broken.progress.epoch == stop:
            broken.save(tmp_path)
            raise Stop

    broken = Trainer(short(), images, 3, Group())
    with pytest.raises(Stop):
        broken.run(Hooks(after_epoch=interrupt))
    resumed = Trainer(short(), images, 3, Group())
    resumed.load(tmp_path)
    assert resumed.progress.epoch == stop
    resumed.run()
    assert same(weights(resumed), weights(undisturbed))
    assert without_seconds(resumed.progress.history) == without_seconds(undisturbed.progress.history)
    for name in ("kept", "weights"):
        ours, theirs = getattr(resumed.progress.population, name), getattr(undisturbed.progress.population, name)
        assert np.array_equal(ours, theirs)


def test_the_seed_decides_everything(images, undisturbed):
    again = Trainer(short(), images, 3, Group())
    again.run()
    assert same(weights(again), weights(undisturbed))
    other = Trainer(short(), images, 4, Group())
    other.run()
    assert not same(weights(other), weights(undisturbed))


def test_a_checkpoint_of_other_settings_is_refused(images, tmp_path):
    trainer = Trainer(short(), images, 0, Group())
    trainer.save(tmp_path)
    with pytest.raises(ValueError, match="another run"):
        Trainer(short(**{"attack.epsilon": 0.3}), images, 0, Group()).load(tmp_path)


def test_records_say_what_happened(undisturbed, images):
    history = undisturbed.progress.history
    assert [r["epoch"] for r in history] == list(range(6))
    assert all(r["inputs"] == len(images) for r in history)
    assert [r["learning_rate"] for r in history] == pytest.approx([0.1] * 4 + [0.01] * 2)
    assert ["attack_active" in r for r in history] == [False] * 2 + [True] * 4
    assert ["reweigh_p_a_mean" in r for r in history] == [False, False, True, False, True, False]
    assert "discard_hard_share" in history[2] and history[2]["remaining"] < len(images)
    active = history[5]["attack_active"]
    assert 1 >= active[0] >= active[1] >= active[2] > 0
    copies = 4 * len(images)
    assert history[0]["forward_passes"] == history[0]["backward_passes"] == copies
    attacked = copies * (1 + active[0] + active[1])
    assert history[5]["backward_passes"] == pytest.approx(copies + attacked, abs=1)
    json.dumps(history)


def test_discarded_samples_are_never_drawn_again(images, monkeypatch):
    drawn = {}

    def watched(images, plan, *arguments, **options):
        drawn[trainer.progress.epoch] = np.concatenate([items for items, _ in plan])
        return batches(images, plan, *arguments, **options)

    monkeypatch.setattr("acr_ray.training.loop.batches", watched)
    trainer = Trainer(short(), images, 3, Group())
    trainer.run()
    kept = set(trainer.progress.population.kept.tolist())
    assert len(kept) < len(images)
    assert sorted(drawn[1].tolist()) == list(range(len(images)))
    for epoch in range(2, 6):
        assert set(drawn[epoch].tolist()) <= kept
        assert len(drawn[epoch]) == len(images) and len(set(drawn[epoch].tolist())) < len(kept)


def test_only_the_parts_that_are_on_act(images):
    plain = Trainer(
        load_recipe("digits-gaussian").change({"training.epochs": 3, "training.milestones": ()}), images, 0, Group()
    )
    plain.run()
    assert plain.progress.population is None and not plain.progress.p_a
    reweighed = Trainer(short(**{"discard.enabled": False, "attack.enabled": False}), images, 0, Group())
    reweighed.run()
    assert len(reweighed.progress.population.kept) == len(images) and reweighed.progress.population.weights is not None


def test_label_counts_equal_a_slow_reference_and_any_sharing_out(images):
    trainer = Trainer(short(), images, 0, Group())
    engine, items = trainer.engine, np.array([3, 8, 100, 7, 11, 40, 41, 42, 43, 90, 91, 92])
    phase = Phase("p_a/test", 100, 100)

    def counts(group):
        return label_counts(engine, images, items, 100, purpose="test", seed=5, augmented=False, group=group)

    expected = np.full(len(images), -1)
    for item in items:
        noisy = SamplingEngine(trainer.module, 10, 0.5)
        answers = noisy.predictions(images.load([item], None), [phase.seed(5, images.names[item], 0)], 100)[0]
        expected[item] = int((answers == int(images.labels[item])).sum())
    assert counts(Group()).tolist() == expected.tolist()

    class Third(Group):
        def __init__(self, rank):
            self.rank, self.world = rank, 3

        def sum(self, values):
            return values

    parts = [counts(Third(rank)) + 1 for rank in range(3)]
    assert (sum(parts) - 1).tolist() == expected.tolist()
    assert sum((part > 0).any() for part in parts) == 3


def test_a_loss_that_is_not_finite_stops_the_run(images):
    with pytest.raises(TrainingStopped, match="not finite after epoch [01].*learning_rate"):
        Trainer(short(**{"training.learning_rate": 1000, "training.weight_decay": 1}), images, 0, Group()).run()


def test_discarding_everything_stops_the_run(images):
    with pytest.raises(TrainingStopped, match=r"no training sample has p_A >= 1.0 at epoch 0"):
        recipe = short(**{"training.e_t": 0, "discard.p_t": 1.0, "training.sigma": 5.0})
        Trainer(recipe, images, 0, Group()).run()
