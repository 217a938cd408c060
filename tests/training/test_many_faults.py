"""Runs that are disturbed again and again, and whose workers come and go."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.fakes.jobs import below, epochs_done, model_sha256, run, start, wait_for

EPOCHS = 100
LONG = (
    "--training.epochs", EPOCHS, "--training.e_t", 30, "--training.milestones", "70", "--reweigh.every", 10,
    "--workers", 2, "--seed", 3, "--no-tracking", "--max-failures", 1000, "--checkpoint-minutes", 0.02,
    "--checkpoint-every", 3,
)  # fmt: skip
KILLS = ["worker KILL"] * 12 + ["worker TERM"] * 4 + ["driver KILL"] * 2 + ["driver TERM"] * 2


def history(out):
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "timing")} for record in records]


@pytest.mark.endurance
@pytest.mark.timeout(2400)
def test_twenty_kills_at_random_moments_change_nothing(head, tmp_path):
    run("train", "digits", "--out", tmp_path / "undisturbed", *LONG, head=head)
    out, chance, done = tmp_path / "run", random.Random(7), []
    process, gone = start("train", "digits", "--out", out, *LONG, head=head), set()
    kills = [*KILLS]
    chance.shuffle(kills)

    def workers():
        return [w for w in below(head.pid, "RayTrainWorker") if w.pid not in gone]

    def places():
        return sorted(path.name for path in (out / "state").glob("*.state.json"))

    for kill in kills:
        wait_for(lambda: len(workers()) == 2, process=process)
        if len(done) % 3:  # two of three while they train, however slow the machine is to start them; else any time
            before = places()
            wait_for(lambda now=before: places() != now, process=process)
        time.sleep(chance.uniform(0, 4))
        assert process.poll() is None, f"ended after {len(done)} kills; the run is too short for this test"
        number = signal.SIGKILL if kill.endswith("KILL") else signal.SIGTERM
        if kill.startswith("worker"):
            hit = workers()
            gone |= {w.pid for w in hit}
            if hit:  # else Ray Train is just starting them again
                os.kill(chance.choice(hit).pid, number)
        else:
            process.send_signal(number)
            printed, errors = process.communicate(timeout=60)
            # While it joins the cluster Ray's own handler is in place, and aborts.
            assert process.returncode in ((-9,) if number == signal.SIGKILL else (143, -6, 15)), errors[-2000:]
            if number == signal.SIGTERM and "state" in os.listdir(out):
                assert not list((out / "state").glob("*.tmp-*"))
            wait_for(lambda: not below(head.pid, "RayTrainWorker"))
            code, process = process.returncode, start("train", "digits", "--out", out, *LONG, head=head)
            kill = f"{kill}, exit code {code}"
        done.append((kill, epochs_done(out)))
        print(*done[-1], flush=True)
    printed, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    assert model_sha256(out) == model_sha256(tmp_path / "undisturbed")
    assert history(out) == history(tmp_path / "undisturbed")


CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
extra = None
for line in sys.stdin:
    if line.strip() == "add":
        extra = cluster.add_node(num_cpus=1)
    elif line.strip() == "remove":
        cluster.remove_node(extra, allow_graceful=False)
    elif line.strip() == "end":
        break
    print("done", flush=True)
cluster.shutdown()
"""

METHOD = """
import os, time
import torch.distributed as dist
from acr_ray.training.methods.gaussian import Gaussian

class Logged(Gaussian):
    def __init__(self, folder, pause):
        os.makedirs(folder, exist_ok=True)
        world = dist.get_world_size() if dist.is_initialized() else 1
        self.path, self.pause = f"{folder}/{world}_{os.getpid()}", pause

    def loss(self, model, batch):
        with open(self.path, "a") as file:
            file.write(f"{batch.progress!r} " + ",".join(map(str, batch.seeds.tolist())) + "\\n")
        time.sleep(self.pause)
        return super().loss(model, batch)
"""


def batches_seen(folder):
    """progress → the seeds (one an image and step) of the global batch; and the world sizes seen."""
    found, worlds = {}, set()
    for path in Path(folder).iterdir():
        worlds.add(int(path.name.split("_")[0]))
        for line in path.read_text().splitlines():
            if line.count(" ") == 1:
                progress, seeds = line.split(" ")
                found.setdefault(float(progress), set()).update(int(s) for s in seeds.split(","))
    return found, worlds


@pytest.mark.endurance
@pytest.mark.timeout(900)
def test_elastic_workers_see_the_same_global_batches(tmp_path):
    (tmp_path / "logged_method.py").write_text(METHOD)
    root = Path(__file__).resolve().parents[2]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    environment = plain | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{root}:{tmp_path}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    }

    def command(name, workers, pause):
        options = json.dumps({"folder": str(tmp_path / f"log-{name}"), "pause": pause})
        return [sys.executable, "-m", "jobs.train", "digits-gaussian", "--out", str(tmp_path / name),
                "--workers", workers,
                "--training.epochs", "40", "--training.e_t", "0", "--training.milestones", "30", "--no-tracking",
                "--method.name", "logged_method:Logged", "--method.options", options, "--resize-seconds", "5",
                "--max-failures", "50", "--checkpoint-minutes", "0.05"]  # fmt: skip

    alone = subprocess.run(command("alone", "1", 0), env=environment, cwd=root, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr[-3000:]
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment,
        cwd=tmp_path,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def tell(word):
        cluster.stdin.write(f"{word}\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline().strip() == "done"

    try:
        address = cluster.stdout.readline().strip()
        tell("add")
        out, log = tmp_path / "elastic", tmp_path / "log-elastic"
        with (tmp_path / "printed").open("w") as printed:
            process = subprocess.Popen(
                command("elastic", "1:2", 0.12),
                env=environment | {"RAY_ADDRESS": address},
                cwd=root,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )

            def worlds():
                return (
                    [path.name.split("_")[0] for path in sorted(log.iterdir(), key=os.path.getmtime)]
                    if log.exists()
                    else []
                )

            def alive():
                assert process.poll() is None, (tmp_path / "printed").read_text()[-2000:]
                return True

            wait_for(lambda: alive() and "2" in worlds() and epochs_done(out) >= 2)
            tell("remove")
            wait_for(lambda: alive() and worlds()[-1] == "1" and epochs_done(out) >= 4)
            tell("add")
            before = len(worlds())
            wait_for(lambda: alive() and len(worlds()) > before and worlds()[-1] == "2")
            assert process.wait(timeout=600) == 0, (tmp_path / "printed").read_text()[-3000:]
    finally:
        cluster.stdin.write("end\n")
        cluster.stdin.close()
        try:
            cluster.wait(timeout=60)
        except subprocess.TimeoutExpired:
            for child in [*psutil.Process(cluster.pid).children(recursive=True), psutil.Process(cluster.pid)]:
                child.kill()
    expected, _ = batches_seen(tmp_path / "log-alone")
    found, sizes = batches_seen(log)
    assert sizes == {1, 2} and found == expected
    assert json.loads((out / "run.json").read_text())["identity"]["workers"] == "1:2"


LOSSES = """
import sys, json, torch, torch.distributed as dist
from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
torch.set_num_threads(1)
rank, world, port, out, compression = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
if world > 1:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
change = {"training.epochs": 1, "training.milestones": (), "training.batch_size": 128, "training.learning_rate": 0.02,
          "training.e_t": 0, "training.gradient_compression": compression}
recipe = load_recipe("digits-gaussian").change({**change, "attack.enabled": True})
trainer = Trainer(recipe, open_images("digits", None, "train").subset(range(640)), 0, Group())
trainer.module.eval()
trainer.module.train = lambda mode=True: trainer.module
losses, inner = [], trainer.step.method.loss
def told(model, batch):
    found = inner(model, batch)
    total = found.loss.detach().double() * len(batch.images)
    if world > 1:
        dist.all_reduce(total)
    losses.append(float(total) / 32)
    return found
trainer.step.method.loss = told
trainer.run()
if rank == 0:
    json.dump(losses, open(out, "w"))
if world > 1:
    dist.destroy_process_group()
"""


def losses(tmp_path, world, compression="none"):
    out = tmp_path / f"losses-{world}-{compression}"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    root = Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOSSES, str(rank), str(world), port, str(out), compression],
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(world)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * world
    return torch.tensor(json.loads(out.read_text()), dtype=torch.float64)


@pytest.mark.slow
def test_one_two_and_four_workers_have_the_same_loss_on_the_same_global_batches(tmp_path):
    """Twenty steps with the attack; batch norm in evaluation mode, since on CPUs it can't be synchronised."""
    alone = losses(tmp_path, 1)
    assert len(alone) == 20 and alone[-1] < alone[0]
    for world in (2, 4):
        torch.testing.assert_close(losses(tmp_path, world), alone, rtol=2e-4, atol=0)
    torch.testing.assert_close(losses(tmp_path, 2, "float16"), alone, rtol=2e-2, atol=0)
