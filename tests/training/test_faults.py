"""Real workers, really killed: what is trained must be what would have been trained."""

import json
import os
import signal

import pytest

from tests.fakes.jobs import below, epochs_done, model_sha256, run, start, wait_for

pytestmark = pytest.mark.ray

SHORT = (
    "--training.epochs", 16, "--training.e_t", 5, "--training.milestones", "10", "--reweigh.every", 4,
    "--workers", 2, "--seed", 3, "--no-tracking",
)  # fmt: skip


def history(out):
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "timing")} for record in records]


def seconds(out):
    return [json.loads(line)["seconds"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def train_workers(head):
    return below(head.pid, "RayTrainWorker")


@pytest.fixture(scope="module")
def undisturbed(head, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    run("train", "digits", "--out", out, *SHORT, head=head)
    return out


def test_a_killed_worker_changes_nothing(head, undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start("train", "digits", "--out", out, *SHORT, head=head)
    wait_for(lambda: epochs_done(out) >= 8, process=process)
    workers = train_workers(head)
    assert len(workers) == 2
    os.kill(workers[1].pid, signal.SIGKILL)
    printed, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    assert model_sha256(out) == model_sha256(undisturbed)
    assert history(out) == history(undisturbed)


def test_a_killed_driver_changes_nothing(head, undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start("train", "digits", "--out", out, *SHORT, head=head)
    wait_for(lambda: epochs_done(out) >= 8, process=process)
    process.kill()
    process.communicate()
    wait_for(lambda: not train_workers(head))
    assert epochs_done(out) < 16 and not (out / "checkpoint" / "model.json").exists()
    before = seconds(out)
    printed, _ = run("train", "digits", "--out", out, *SHORT, head=head)
    assert f"resuming: {len(before)} of 16 epochs are done" in printed and "epoch 1/16" not in printed
    assert seconds(out)[:5] == before[:5], "epochs that had a checkpoint were trained again"
    assert model_sha256(out) == model_sha256(undisturbed)
    assert history(out) == history(undisturbed)
    again, _ = run("train", "digits", "--out", out, *SHORT, head=head)
    assert "epoch" not in again


def test_a_run_that_diverges_ends_with_one_line_and_no_retry(head, tmp_path):
    out = tmp_path / "run"
    wild = ("--training.learning_rate", 1000, "--training.weight_decay", 1, "--training.epochs", 3)
    _, errors = run(
        "train",
        "digits-gaussian",
        "--out",
        out,
        "--workers",
        2,
        *wild,
        "--training.milestones",
        "",
        "--no-tracking",
        head=head,
        code=1,
    )
    lines = [line for line in errors.splitlines() if line.startswith("failed:")]
    assert len(lines) == 1 and "not finite" in lines[0] and "learning_rate" in lines[0]
    assert not (out / "summary.json").exists()
