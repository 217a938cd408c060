"""Searches that are really killed, and what a search with trunks and ASHA saves; minutes long."""

import json
import os
import random
import shutil
import signal
import time

import psutil
import pyarrow.parquet as pq
import pytest

from acr_ray.settings import load_recipe
from acr_ray.storage import Folder
from acr_ray.tuning.results import costs
from jobs.benchmarks import search as bench
from tests.fakes.jobs import below, run, start, wait_for

pytestmark = pytest.mark.ray

GIVEN = (
    "tune", "digits", "--trials", 8, "--scheduler", "fifo", "--search", "random", "--seed", 5, "--concurrent", 2,
    "--training.epochs", 16, "--training.e_t", 5, "--training.milestones", "10", "--reweigh.every", 4,
    "--space", "training.m=2,4", "--space", "training.e_t=5,8", "--space", "discard.p_t=0.3..0.6",
    "--space", "attack.steps=1..3", "--validation-n", 300, "--checkpoint-every", 4, "--no-tracking",
)  # fmt: skip
KILLS = 10


def rows(out):
    table = pq.read_table(out / "trials.parquet").to_pylist()
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table]


def models(out):
    found = {p.name: json.loads(p.read_text())["model_sha256"] for p in out.glob("trials/*.json")}
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def undisturbed(head, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    run(*GIVEN, "--out", out, head=head)
    return out


def trial_processes(head):
    """Those that train: Ray names them after the class that Tune wraps trials in."""
    return below(head.pid, "ResourceTrainable")


def kill(process):
    try:
        os.kill(process.pid, signal.SIGKILL)
    except (ProcessLookupError, psutil.Error):
        return False
    return True


@pytest.mark.endurance
def test_kills_at_random_moments_change_neither_the_trials_nor_the_best(head, undisturbed, tmp_path):
    """Trials, those that make a trunk among them, and the driver."""
    out, chance = tmp_path / "search", random.Random(7)
    killed = {"trial": 0, "trunk": 0, "driver": 0}
    seen_finished: dict[str, float] = {}
    process = start(*GIVEN, "--out", out, head=head)
    limit = time.monotonic() + 900
    while sum(killed.values()) < KILLS and time.monotonic() < limit:
        while process.poll() is None and not trial_processes(head):
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 5.0))
        finished = {p.name: p.stat().st_mtime_ns for p in out.glob("trials/*.json")}
        assert all(finished[name] == at for name, at in seen_finished.items()), "a finished trial was done again"
        seen_finished = finished
        if process.poll() is not None:
            break
        trials = trial_processes(head)
        at_trunk = not finished and bool(list(out.glob("trunks/*/trunk.json")))
        if chance.random() < 0.3:
            kill(process)
            process.communicate()
            killed["driver"] += 1
            wait_for(lambda: not trial_processes(head))
            process = start(*GIVEN, "--out", out, head=head)
        elif trials and kill(chance.choice(trials)):
            killed["trunk" if at_trunk else "trial"] += 1
    printed, errors = process.communicate(timeout=900)
    assert process.returncode == 0, f"{killed}\n{printed[-2000:]}\n{errors[-3000:]}"
    assert rows(out) == rows(undisturbed) and models(out) == models(undisturbed), killed
    assert (out / "best.json").read_text() == (undisturbed / "best.json").read_text()
    assert costs(Folder(out), rows_as_reports(out)) == costs(Folder(undisturbed), rows_as_reports(undisturbed))
    assert sum(killed.values()) >= KILLS and killed["driver"] and killed["trial"] + killed["trunk"], killed


def rows_as_reports(out):
    return [row | {"epoch": row["epochs"]} for row in rows(out)]


@pytest.mark.endurance
def test_trunks_are_used_again_by_a_later_search(head, undisturbed, tmp_path):
    """What a search leaves under trunks/ spares another, with other settings of the parts after E_t, the training."""
    out = tmp_path / "later"
    shutil.copytree(undisturbed, out)

    def made():
        return {p: p.stat().st_mtime_ns for p in out.glob("trunks/*/*.json") if p.name != "trunk.json"}

    before, later = made(), [*GIVEN, "--out", out]
    later[later.index("--trials") + 1] = 2
    run(*later, "--attack.epsilon", 0.4, "--overwrite", head=head)
    assert before and made() == before, "a trunk or an estimate was made again"
    assert len(rows(out)) == 2


@pytest.mark.endurance
def test_trials_of_two_workers_fork_bit_for_bit(head, tmp_path):
    """On Ray Train inside Ray Tune: two trials share a trunk that two workers train."""
    given = (
        "tune", "digits", "--trials", 2, "--workers", 2, "--concurrent", 1, "--scheduler", "fifo", "--search", "grid",
        "--space", "discard.p_t=0.4,0.5", "--training.epochs", 6, "--training.e_t", 3, "--training.milestones", "4",
        "--reweigh.every", 2, "--validation-n", 200, "--no-tracking",
    )  # fmt: skip
    run(*given, "--out", tmp_path / "forked", head=head)
    run(*given, "--out", tmp_path / "scratch", "--no-trunk", head=head)
    assert models(tmp_path / "forked") == models(tmp_path / "scratch") and len(models(tmp_path / "forked")) == 2
    assert len(list((tmp_path / "forked" / "trunks").iterdir())) == 1
    for row, other in zip(rows(tmp_path / "forked"), rows(tmp_path / "scratch"), strict=True):
        assert row["acr"] == other["acr"] and row["forward_passes"] < other["forward_passes"]


@pytest.mark.endurance
@pytest.mark.timeout(900)
def test_the_grid_costs_what_was_planned_and_trunks_and_asha_save_what_they_should(tmp_path, monkeypatch):
    """The 24-trial grid at a quarter of its length: 15 epochs for 60, a quarter of the validation images and of the
    draws that discard. The bounds of the whole grid (0.75 and 0.4) are `jobs.bench search`'s; a rung is a coarse thing
    among 15 epochs."""
    scaled = {
        "training.epochs": 15,
        "training.milestones": (8, 12),
        "training.e_t": 5,
        "discard.draws": 25,
        "reweigh.draws": 8,
        "reweigh.every": 3,
    }
    monkeypatch.setattr(bench, "SHORT", scaled)
    monkeypatch.setattr(bench, "QUICK_VALIDATION", {"share": 0.05})
    monkeypatch.setattr(
        bench, "QUICK", ("training.m=2,4", "training.e_t=5,7,10", "discard.p_t=0.4,0.5", "attack.steps=1,3")
    )
    assert load_recipe("digits").change(scaled).training.epochs == 15
    found = bench._measure(tmp_path, quick=True)
    assert found["trials"] == 24 and found["planned_equals_counted"]
    assert found["passes_ratio"]["median"] <= 0.75, found["passes_ratio"]
    assert found["search_ratio"]["median"] <= 0.5, found["search_ratio"]
