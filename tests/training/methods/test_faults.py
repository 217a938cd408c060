"""Every method with two real workers: killed and resumed bit for bit, certified, and all in one report."""

import json
import os
import signal

import pytest

from tests.fakes.jobs import below, epochs_done, model_sha256, run, start, wait_for

pytestmark = [pytest.mark.endurance, pytest.mark.ray, pytest.mark.timeout(1500)]

METHODS = ("gaussian", "smoothadv", "consistency", "macer", "smoothmix", "catrs", "stability")
SHORT = ("--training.epochs", 16, "--training.milestones", "8", "--training.e_t", 0, "--workers", 2, "--no-tracking")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("methods")


@pytest.mark.parametrize("method", METHODS)
def test_trains_and_resumes_bit_for_bit(head, folder, method):
    recipe, calm, killed = f"digits-{method}", folder / method, folder / f"{method}-killed"
    run("train", recipe, "--out", calm, *SHORT, head=head)
    process = start("train", recipe, "--out", killed, *SHORT, head=head)
    wait_for(lambda: epochs_done(killed) >= 4, process=process)
    workers = below(head.pid, "RayTrainWorker")
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    assert model_sha256(killed) == model_sha256(calm)


def test_all_certify_and_appear_in_one_report(head, folder):
    sources = []
    for method in METHODS:
        out = folder / f"certified-{method}"
        run("certify", folder / method, "--out", out, "--n", 500, "--max-images", 60, "--no-tracking", head=head)
        sources.append(f"{method}={out}")
    printed, _ = run("report", *sources, "--out", folder / "report", "--no-tracking", head=head)
    summary = json.loads((folder / "report" / "summary.json").read_text())
    assert [source["name"] for source in summary["sources"]] == list(METHODS)
    assert len({source["acr"] for source in summary["sources"]}) == len(METHODS)
    assert all(method in printed for method in METHODS)
