"""``bench gpu``: NCCL with as many processes as there are cards, and gloo processes that share one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from jobs.benchmarks.gpu_parts import Findings

CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16, accumulated": {"training.precision": "bfloat16", "training.accumulate": 2},
    "float16, accumulated, compressed": {
        "training.precision": "float16",
        "training.accumulate": 2,
        "training.gradient_compression": "float16",
    },
    "with the attack": {"attack.enabled": True, "training.e_t": 0},
    # Last: compiling may outlast the part on a slow host.
    "bfloat16, compiled, accumulated, compressed": {
        "training.precision": "bfloat16",
        "training.compile": True,
        "training.accumulate": 2,
        "training.gradient_compression": "float16",
        "attack.buckets": 1,
    },
}


def workers(found: Findings) -> None:
    """Each case trains with two workers and with one, and compares."""
    if not found.dry:
        for world in range(1, min(2, torch.cuda.device_count()) + 1):
            with found.check(f"NCCL, processes: {world}"):
                _together(found, world, "nccl", "exchanges")
    for case in list(CASES)[1:2] if found.dry else CASES:
        with found.check(f"two processes against one, {case}") as v:
            v |= _together(found, 2, "gloo", case)


def _together(found: Findings, world: int, backend: str, case: str) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        given = [json.dumps([rank, world, port, backend, case, folder, found.device]) for rank in range(world)]
        command = [sys.executable, "-m", "jobs.benchmarks.gpu_workers"]
        every = [
            subprocess.Popen([*command, one], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for one in given
        ]
        try:
            outputs = [process.communicate(timeout=100)[0] for process in every]
        finally:
            for process in every:
                process.kill()
        for process, output in zip(every, outputs, strict=True):
            if process.returncode:
                raise RuntimeError((output.strip().splitlines() or ["no output"])[-1])
        return json.loads((Path(folder) / "found.json").read_text())


def _worker(rank: int, world: int, port: int, backend: str, case: str, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    device = kind if kind == "cpu" else f"cuda:{rank if backend == 'nccl' else 0}"
    if kind != "cpu":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    values = _exchanges(device) if case == "exchanges" else _train(CASES[case], device)
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(values))
    dist.destroy_process_group()


def _exchanges(device: str) -> dict[str, Any]:
    group = Group(device)
    for dtype in (np.float64, np.int64):
        assert group.gather(np.arange(3).astype(dtype)).shape == (group.world, 3)
    # Wrapped, hooked and left without synchronisation as with several workers, also where there is one.
    group.world = max(2, group.world)
    for compression, sync in (("none", False), ("float16", False), ("none", True)):
        layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10)
        network = nn.Sequential(*layers).to(device, memory_format=torch.channels_last)
        wrapped = group.wrap(network, compression=compression, sync_batch_norm=sync)
        x = torch.randn(16, 3, 8, 8, device=device)
        with group.no_gradient_sync(wrapped):
            wrapped(x).square().mean().backward()
        wrapped(x).square().mean().backward()
        torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9, fused=True).step()
        assert all(bool(torch.isfinite(p).all()) for p in wrapped.parameters())
    return {}


def _train(changes: dict[str, Any], device: str) -> dict[str, Any]:
    images = open_images("digits", None, "train").subset(range(0, 1297, 8))
    recipe = load_recipe("digits-gaussian").change({"training.epochs": 2, "training.milestones": (), **changes})
    trainer = Trainer(recipe, images, 0, Group(device), device)
    trainer.run()
    for parameter in trainer.module.parameters():
        first = parameter.detach().clone()
        dist.broadcast(first, 0)
        assert torch.equal(first, parameter), "workers differ"
    alone = Group.__new__(Group)
    alone.device, alone.rank, alone.world = device, 0, 1
    one = Trainer(recipe, images, 0, alone, device)
    one.run()
    losses = {"loss": trainer.progress.history[-1]["loss"], "loss_of_one": one.progress.history[-1]["loss"]}
    assert abs(losses["loss"] - losses["loss_of_one"]) < 0.1, losses
    return losses


if __name__ == "__main__":
    _worker(*json.loads(sys.argv[1]))
