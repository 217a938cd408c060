"""Methods that pass the network several times a step, in real process groups (gloo, no Ray)."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = """
import sys, torch, torch.distributed as dist
from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
torch.set_num_threads(1)
name, rank, world, port, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
images = open_images("digits", None, "train").subset(range(0, 1200, 6))
tiny = {"training.epochs": 2, "training.e_t": 1, "training.milestones": ()}
trainer = Trainer(load_recipe(f"digits-{name}").change(tiny), images, 0, Group())
trainer.run()
record = trainer.progress.history[-1]
torch.save({"weights": trainer.module.state_dict(), "record": record}, f"{out}/{rank}.pt")
dist.destroy_process_group()
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def train(name, world, out):
    out.mkdir()
    port, environment = str(free_port()), {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[3]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, name, str(rank), str(world), port, str(out)], cwd=root, env=environment
        )
        for rank in range(world)
    ]
    assert [worker.wait(timeout=240) for worker in workers] == [0] * world
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(world)]


# Several processes on two cores take their time; make test-slow has them.
MORE = [
    pytest.param(name, world, marks=pytest.mark.slow)
    for name, world in (("stability", 2), ("smoothmix", 3), ("catrs", 3))
]


@pytest.mark.parametrize("name, world", MORE)
def test_workers_agree_to_the_bit_and_share_the_cost(name, world, tmp_path):
    alone, several = train(name, 1, tmp_path / "alone")[0], train(name, world, tmp_path / "several")
    for worker in several[1:]:
        assert all(torch.equal(worker["weights"][k], v) for k, v in several[0]["weights"].items())
    for field in ("forward_passes", "backward_passes", "inputs"):
        assert several[0]["record"][field] == alone["record"][field]
    # Batch norm sees a worker's own rows, so the runs are alike but not the same.
    assert several[0]["record"]["loss"] == pytest.approx(alone["record"]["loss"], rel=0.25)
