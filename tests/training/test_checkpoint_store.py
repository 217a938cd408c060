"""Checkpoints: within an epoch to the bit, verified, the last and the best kept, a full disk survived."""

import errno

import pytest
import torch

from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.storage import Folder
from acr_ray.training.checkpoint import DamagedCheckpoint
from acr_ray.training.checkpoint_store import CheckpointStore
from acr_ray.training.control.messages import Request
from acr_ray.training.control.worker_sync import WorkerSync
from acr_ray.training.group import Group
from acr_ray.training.loop import Hooks, Trainer

SHORT = {"training.epochs": 4, "training.e_t": 1, "training.milestones": (2,), "reweigh.every": 1}


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "train").subset(range(0, 1297, 6))


def trainer_of(images, **more):
    return Trainer(load_recipe("digits").change(SHORT | more), images, 3, Group())


class Everywhere(WorkerSync):
    """Asks before every step, so a checkpoint can be made at any of them."""

    def due(self, step):
        return True


class Enough(Exception):
    pass


def comparable(history):
    return [{k: v for k, v in record.items() if k not in ("seconds", "timing")} for record in history]


@pytest.mark.parametrize(
    "at, method",
    [((0, 2), "digits"), ((1, 0), "digits"), ((3, 3), "digits"), ((0, 0), "digits-catrs"), ((2, 1), "digits-catrs")],
)
def test_a_run_that_goes_on_within_an_epoch_is_the_same_run(images, tmp_path, at, method):
    recipe = load_recipe(method).change({k: v for k, v in SHORT.items() if method == "digits" or "reweigh" not in k})
    undisturbed = Trainer(recipe, images, 3, Group())
    undisturbed.run()

    def save(asked):
        assert asked == Request.SAVE
        if (begun.progress.epoch, begun.progress.step) == at:
            begun.save(tmp_path)
            raise Enough

    begun = Trainer(recipe, images, 3, Group(), worker_sync=Everywhere(Group(), lambda: Request.SAVE))
    with pytest.raises(Enough):
        begun.run(Hooks(between_steps=save))
    resumed = Trainer(recipe, images, 3, Group())
    resumed.load(tmp_path)
    assert (resumed.progress.epoch, resumed.progress.step) == at
    resumed.run()
    for name, value in undisturbed.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name])
    assert comparable(resumed.progress.history) == comparable(undisturbed.progress.history)


def filled(tmp_path, images, keep=2, epochs=3, best_by="loss"):
    said = []
    states, trainer = CheckpointStore(Folder(tmp_path / "state"), keep, best_by, said.append), trainer_of(images)
    trainer.run(Hooks(after_epoch=lambda: states.add(trainer.progress.epoch, 0, trainer.save)), until=epochs)
    return states, trainer, said


def test_the_last_and_the_best_are_kept(images, tmp_path):
    states, trainer, said = filled(tmp_path, images)
    assert [e.epoch for e in states.entries()] == [2, 3] and not said
    trainer.progress.history[-1]["loss"] = 0.0
    states.add(3, 0, trainer.save)
    for epoch in (4, 5, 6):
        trainer.progress.epoch = epoch
        trainer.progress.history.append({**trainer.progress.history[-1], "epoch": epoch - 1, "loss": 1.0})
        states.add(epoch, 0, trainer.save)
    assert [e.epoch for e in states.entries()] == [3, 5, 6] and states.best().epoch == 3
    states.add(6, 0, trainer.save)
    assert [e.epoch for e in states.entries()] == [3, 5, 6], "a place has one checkpoint"
    assert len(states.folder.names()) == 12, "files of deleted checkpoints are left"


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "samples.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(images, tmp_path, file, damage):
    states, trainer, said = filled(tmp_path, images)
    older, newest = states.entries()
    path = tmp_path / "state" / f"{newest.name}.{file}"
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: -len(content) // 3] if damage == "cut" else content)
    assert states.newest_intact() == older
    if damage == "gone" and file == "state.json":
        return  # then it is a checkpoint that was never finished, no damaged one
    assert (
        len(said) == 1 and said[0].startswith("the checkpoint of epoch 3 is damaged and not used") and file in said[0]
    )
    with pytest.raises(DamagedCheckpoint, match=file):
        states.load(newest, trainer.load)
    for name in states.folder.names():
        if name.startswith(older.name) and "state" not in name:
            (tmp_path / "state" / name).write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match="no checkpoint of this run is intact.*0 bytes"):
        states.newest_intact()


def test_a_full_disk_is_survived_and_said_once(images, tmp_path, monkeypatch):
    states, trainer, said = filled(tmp_path, images)
    before, write = states.entries(), Folder.write_bytes

    def full(self, name, content):
        if "optimizer" in name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, name, content)

    monkeypatch.setattr(Folder, "write_bytes", full)
    assert not states.add(4, 0, trainer.save) and not states.add(4, 7, trainer.save)
    assert states.entries() == before and states.newest_intact() == before[-1]
    assert not [name for name in states.folder.names() if name.startswith("00004")]
    monkeypatch.undo()
    assert states.add(5, 0, trainer.save)
    assert [line.split(" (")[0] for line in said] == [
        "the checkpoint of epoch 4 could not be written",
        "checkpoints can be written again, from epoch 5 on",
    ]
