"""Certification on a cluster of several nodes while actors, nodes and the driver are killed, fifty times in all."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from ray.cluster_utils import Cluster

from tests.certification.test_faults import counts, tsv
from tests.fakes.jobs import ROOT, below, environment
from tests.fakes.models import write_digits_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.endurance, pytest.mark.timeout(2400)]

KILLS, IMAGES = 50, 100
#: A long run with fixed n, a short one whose images stop at their own time, and so on.
SETTINGS = [("--n", 200_000), ("--n", 400_000, "--stopping", "width", "--tolerance", 0.001)]


class Nodes:
    """A Ray of a head without work and two nodes of one CPU each, all on this machine."""

    def __init__(self):
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.environment = environment() | {"RAY_ADDRESS": self._cluster.address}
        self.nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]

    def lose(self, rng):
        """SIGKILL for a node's processes; another node comes in its place."""
        node = self.nodes.pop(rng.randrange(len(self.nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self._cluster.add_node(num_cpus=1))

    def samplers(self):
        return below(os.getpid(), "ray::Sampler")

    def close(self):
        self._cluster.shutdown()


@pytest.fixture
def nodes():
    running = Nodes()
    yield running
    running.close()


def start(nodes, checkpoint, out, seed):
    command = [sys.executable, "-m", "jobs.certify", checkpoint, "--out", out, "--max-images", IMAGES]
    command += ["--seed", seed, "--actors", 2, "--no-tracking", *SETTINGS[(seed - 1) % len(SETTINGS)]]
    with (out.parent / f"{out.name}.log").open("a") as log:
        return subprocess.Popen([*map(str, command)], env=nodes.environment, cwd=ROOT, stdout=log, stderr=log)


def finish(process, out, limit=600):
    assert process.wait(timeout=limit) == 0, (out.parent / f"{out.name}.log").read_text()[-3000:]


def has_begun(out):
    return len(list((out / "ledger").glob("*.jsonl"))) if (out / "ledger").exists() else 0


def test_fifty_kills_change_nothing(nodes, tmp_path):
    checkpoint = write_digits_checkpoint(tmp_path / "model", sharper=3)
    rng, kills, seed = random.Random(0), {"actor": 0, "node": 0, "driver": 0}, 0
    while sum(kills.values()) < KILLS:
        seed += 1
        out, quiet = tmp_path / f"disturbed-{seed}", tmp_path / f"quiet-{seed}"
        finish(start(nodes, checkpoint, quiet, seed), quiet)
        process = start(nodes, checkpoint, out, seed)
        while process.poll() is None and sum(kills.values()) < KILLS:
            seen, limit = has_begun(out), time.monotonic() + rng.uniform(1, 3)
            # Some work is done between two kills, else nothing would ever get on.
            while process.poll() is None and (time.monotonic() < limit or has_begun(out) <= seen):
                time.sleep(0.05)
                if time.monotonic() > limit + 120:
                    pytest.fail((tmp_path / f"{out.name}.log").read_text()[-3000:])
            if process.poll() is not None:
                break
            what = rng.choices(["actor", "node", "driver"], weights=[6, 1, 2])[0]
            samplers = nodes.samplers()
            if what == "actor" and samplers:
                os.kill(rng.choice(samplers).pid, signal.SIGKILL)
            elif what == "node":
                nodes.lose(rng)
            else:
                what = "driver"
                process.kill()
                process.wait()
                process = start(nodes, checkpoint, out, seed)
            kills[what] += 1
        finish(process, out)
        assert counts(out) == counts(quiet) and tsv(out) == tsv(quiet)
        assert len(counts(out)) == IMAGES
        numbers = [json.loads((folder / "summary.json").read_text()) for folder in (out, quiet)]
        assert numbers[0]["evaluations"] == numbers[1]["evaluations"], "no block is in the ledger twice"
    print(kills, seed, "runs")
    assert min(kills.values()) > 0
