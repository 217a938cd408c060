"""What makes a step faster or a batch larger changes nothing it should not, and defaults change nothing at all."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acr_ray.cli.commands.train import parse, workers_of
from acr_ray.data import open_images
from acr_ray.settings import UserError, load_recipe
from acr_ray.settings.recipe import LATER, NOT_DECIDING, TrainingSettings
from acr_ray.storage import Folder
from acr_ray.tracking.runs import scalars
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer, TrainingStopped, check_workers
from acr_ray.training.optimizer import learning_rate
from acr_ray.training.profiling import Profile
from acr_ray.training.step import StepInput
from acr_ray.training.sums import Sums

KEPT = Path(__file__).parent / "kept" / "digits_short.json"
SHORT = {"training.epochs": 3, "training.e_t": 1, "training.milestones": (2,), "reweigh.every": 1}


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(0, 1297, 6))


def trained(images, epochs=None, **more):
    trainer = Trainer(load_recipe("digits").change(SHORT | more), images, 3, Group())
    trainer.run(until=epochs)
    return trainer


def told(trainer):
    """What a run is known by: losses, accuracies, shares, and sizes of weights."""
    keys = ("loss", "accuracy", "remaining", "attack_active", "forward_passes", "backward_passes", "learning_rate")
    history = [{key: record[key] for key in keys if key in record} for record in trainer.progress.history]
    return {"history": history, "norms": {k: float(v.double().norm()) for k, v in trainer.module.state_dict().items()}}


def test_defaults_train_what_earlier_versions_trained(images):
    """The file was written by version 0.1.0 before any of these options existed; kernels differ a little."""
    found, kept = told(trained(images)), json.loads(KEPT.read_text())
    assert len(found["history"]) == len(kept["history"]) == 3
    for now, then in zip(found["history"], kept["history"], strict=True):
        assert now.keys() == then.keys()
        for key in then:
            assert now[key] == pytest.approx(then[key], rel=0.02, abs=0.005), key
    assert found["norms"] == pytest.approx(kept["norms"], rel=0.01)


def test_every_option_that_decides_the_weights_is_part_of_a_run():
    recipe = load_recipe("digits")
    assert set(recipe.identity()) == set(recipe.flat()) - set(NOT_DECIDING) - set(LATER)
    # A promise from version 0.2.0 on: another value, and no run resumes.
    assert recipe.sha256 == "3263bef1044b7eab7f86424e06ce8ef10591d1b7f5f1226f3574423e769b6d12"
    others = {"training.precision": "bfloat16", "training.accumulate": 2, "attack.buckets": 8}
    others |= {"data.size": 9, "data.resize": "12", "data.crop": False, "data.augmentation": "flip"}
    others |= {"data.mean": (0.5,), "training.init": "/x", "training.init_learning_rate": 0.5}
    others |= {"training.noise": "lattice", "data.decode": "gpu"}
    assert set(LATER) <= {*others, "data.std"}
    needed = {"data.mean": {"data.std": (0.5,)}, "training.init_learning_rate": {"training.init": "/x"}}
    for field, value in others.items():
        changed = recipe.change({field: value, **needed.get(field, {})})
        assert changed.identity()[field] == value and changed.sha256 != recipe.sha256


def in_evaluation_mode(trainer):
    """Batch norm does not see the batch, so that parts of one can be compared with the whole."""
    trainer.module.eval()
    trainer.module.train = lambda mode=True: trainer.module
    return trainer


@pytest.mark.parametrize("parts", [2, 3, 7, 1000])
def test_accumulated_gradients_are_those_of_the_whole_step(images, parts):
    def run(accumulate):
        recipe = load_recipe("digits").change(
            SHORT | {"training.accumulate": accumulate, "training.learning_rate": 0.01}
        )
        trainer = in_evaluation_mode(Trainer(recipe, images, 3, Group()))
        trainer.module.double()
        trainer.images = Doubles(images)
        trainer.run(until=2)
        return trainer

    whole, split = run(1), run(parts)
    for one, other in zip(whole.progress.history, split.progress.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["forward_passes"] == other["forward_passes"] and one["inputs"] == other["inputs"]
        # A part whose rows are all wrong goes backward with none of them; the whole step has some right ones.
        assert one["backward_passes"] >= other["backward_passes"]
    for name, value in whole.module.state_dict().items():
        torch.testing.assert_close(value, split.module.state_dict()[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("inputs", "world", "accumulate", "parts"), [(7, 2, 4, 3), (5, 2, 3, 2), (9, 3, 2, 2)])
def test_every_worker_passes_as_many_parts(images, monkeypatch, inputs, world, accumulate, parts):
    """Shares of a step may differ by one image; synchronised batch norm would wait for ever for a part too many."""

    class Among(Group):
        """One of several workers that exchanges nothing."""

        def __init__(self, rank):
            super().__init__()
            self.rank, self.world = rank, world

        def wrap(self, module, **options):
            return module

        def no_gradient_sync(self, wrapped):
            return contextlib.nullcontext()

        def average_buffers(self, module):
            pass

    recipe = load_recipe("digits-gaussian").change(
        {"training.m": 1, "training.batch_size": inputs, "training.accumulate": accumulate}
    )
    seen = []
    for rank in range(world):
        trainer = Trainer(recipe, images, 0, Among(rank))
        passed = []
        trainer.module.register_forward_pre_hook(lambda module, given, to=passed: to.append(len(given[0])))
        mine = np.arange(rank, inputs, world)
        given = StepInput(images.load(mine, None), torch.from_numpy(images.labels[mine]), mine, inputs)
        trainer.step(given, Sums(0, "cpu"))
        assert sum(passed) == len(mine)
        seen.append(len(passed))
    assert seen == [parts] * world


def test_a_full_gpu_is_told_which_setting_to_change(images, monkeypatch):
    trainer = Trainer(load_recipe("digits").change(SHORT | {"training.accumulate": 2}), images, 3, Group())

    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainer, "step", full)
    with pytest.raises(TrainingStopped) as stopped:
        trainer.run()
    told = str(stopped.value)
    assert "128 noise draws pass the network at a time" in told and "\n" not in told
    assert "Raise training.accumulate (now 2" in told and "lower training.batch_size (now 256)" in told
    assert "--overwrite" in told


class Doubles:
    """Images in float64, so that differences are mistakes and not rounding."""

    def __init__(self, images):
        self._images = images

    def __getattr__(self, name):
        return getattr(self._images, name)

    def __len__(self):
        return len(self._images)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_trains_about_the_same_and_resumes_to_the_bit(images, precision, tmp_path):
    undisturbed = trained(images, **{"training.precision": precision})
    exact = trained(images)
    # In float16 the first steps are skipped until the scale of gradients has come down to what the format holds.
    far = 0.15 if precision == "bfloat16" else 0.8
    assert undisturbed.progress.history[-1]["loss"] == pytest.approx(exact.progress.history[-1]["loss"], rel=far)
    assert all(v.dtype == torch.float32 for v in undisturbed.module.parameters())
    begun = trained(images, 1, **{"training.precision": precision})
    begun.save(tmp_path)
    resumed = Trainer(begun.recipe, images, 3, Group())
    resumed.load(tmp_path)
    assert resumed.scaler.state_dict() == begun.scaler.state_dict() and bool(begun.scaler.state_dict()) == (
        precision == "float16"
    )
    resumed.run()
    for name, value in undisturbed.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name])


def test_warm_up_and_scaling_and_the_papers_schedule():
    plain = TrainingSettings(sigma=1, epochs=150, milestones=(50, 100))
    assert [learning_rate(plain, e) for e in (0, 49, 50, 99, 100)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    assert learning_rate(plain, 0, 0, 10) == 0.1
    warm = plain.model_copy(update={"warmup_epochs": 2, "scale_learning_rate": True, "batch_size": 512})
    rates = [learning_rate(warm, epoch, step, 4) for epoch in range(3) for step in range(4)]
    assert rates == pytest.approx([0.2 * k / 8 for k in range(1, 9)] + [0.2] * 4)
    assert learning_rate(warm, 0) == learning_rate(warm, 2) == pytest.approx(0.2)
    with pytest.raises(UserError, match="training.warmup_epochs = 60.*0 to 59"):
        load_recipe("digits").change({"training.warmup_epochs": 60})


def test_a_loss_that_fails_is_named_by_its_step(images):
    recipe = load_recipe("digits-gaussian").change({"training.epochs": 2, "training.milestones": (), "training.e_t": 0})
    trainer = Trainer(recipe, images, 3, Group())
    inner, calls = trainer.step.method.loss, []

    def failing(model, batch):
        found = inner(model, batch)
        calls.append(batch.progress)
        return found if len(calls) != 3 else type(found)(found.loss * float("inf"), found.logits)

    trainer.step.method.loss = failing
    with pytest.raises(TrainingStopped, match=r"the loss is not finite at epoch 0, step 2; the last checkpoint"):
        trainer.run()


def test_records_have_times_beside_what_is_compared(images):
    timing = trained(images, 2).progress.history[1]["timing"]
    shares = [timing[f"{part}_share"] for part in ("data", "noise", "attack", "forward_backward", "optimizer", "p_a")]
    assert all(share >= 0 for share in shares) and 0.5 < sum(shares) <= 1.01
    assert timing["images_per_s"] > 0 and timing["attack_share"] > 0 and timing["p_a_share"] > 0


def test_traces_of_a_few_steps(images, tmp_path):
    recipe = load_recipe("digits").change(SHORT)
    trainer = Trainer(recipe, images, 3, Group())
    profile = Profile(Folder(tmp_path), 0, {0, 1})
    trainer.run(Hooks(after_step=profile, after_epoch=lambda: profile.end_epoch(trainer.progress.epoch - 1)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rank0_epoch00000.json", "rank0_epoch00001.json"]
    names = {event.get("name") for event in json.loads((tmp_path / "rank0_epoch00001.json").read_text())["traceEvents"]}
    assert "aten::convolution" in names and any("backward" in str(name).lower() for name in names)


def test_mlflow_gets_the_times_as_numbers(images):
    record = trained(images, 2).progress.history[1]
    found = scalars(record)
    assert found["timing.images_per_s"] == record["timing"]["images_per_s"]
    assert found["reweigh_weight_quantiles.1"] == record["reweigh_weight_quantiles"][0] > 0
    assert all(isinstance(value, (int, float)) for value in found.values())


@pytest.mark.parametrize("text, found", [("3", (3, None)), ("2:8", (2, 8)), ("1:1", (1, 1))])
def test_workers_may_be_a_range(text, found):
    _, options = parse(["digits", "--workers", text])
    assert options.workers == found
    workers = workers_of(options)
    assert workers.text == (int(text) if ":" not in text else text) and (workers.count, workers.most) == found


@pytest.mark.parametrize("text", ["0", "8:2", "2:", ":2", "two", "1:2:3"])
def test_other_numbers_of_workers_are_refused(text):
    with pytest.raises(UserError, match="--workers"):
        parse(["digits", "--workers", text])


def test_more_workers_than_a_step_has_inputs(images):
    check_workers(load_recipe("digits"), 217, 8)
    with pytest.raises(UserError, match="--workers 300: a step has only .* inputs"):
        check_workers(load_recipe("digits"), 217, 300)


def test_synchronised_batch_norm_on_cpus_is_refused():
    class Two(Group):
        def __init__(self):
            self.device, self.rank, self.world = "cpu", 0, 2

    with pytest.raises(UserError, match="sync_batch_norm = True: needs GPUs"):
        Two().wrap(torch.nn.Linear(1, 1), sync_batch_norm=True)


@pytest.mark.slow
def test_a_compiled_network_trains_the_same(images):
    """To rounding, over one step: later steps amplify it."""
    one = {
        "training.batch_size": 4 * 217,
        "training.e_t": 0,
        "discard.enabled": False,
        "training.epochs": 1,
        "training.milestones": (),
    }
    plain, compiled = (trained(images, **one, **{"training.compile": c}) for c in (False, True))
    assert compiled.progress.history[0]["loss"] == pytest.approx(plain.progress.history[0]["loss"], rel=1e-3)
    for name, value in plain.module.state_dict().items():
        torch.testing.assert_close(compiled.module.state_dict()[name], value, rtol=1e-2, atol=1e-4)
