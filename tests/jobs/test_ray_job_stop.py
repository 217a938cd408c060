"""ray job stop: the job saves what it has within its grace, and the same command goes on to the same result."""

import json
import subprocess
import time

import pytest

from tests.fakes.jobs import ROOT, epochs_done, model_sha256, run, wait_for
from tests.fakes.models import write_digits_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]

GRACE = 30


def ray(head, *arguments):
    done = subprocess.run(
        ["ray", "job", *map(str, arguments)],
        env=head.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submitted(head, name, *arguments):
    ray(
        head,
        "submit",
        "--no-wait",
        "--address",
        head.dashboard,
        "--submission-id",
        name,
        "--working-dir",
        ".",
        "--",
        "python",
        "-m",
        *arguments,
    )


def stopped(head, name):
    """Stop a job. Returns the seconds that it took to end."""
    started = time.monotonic()
    printed = ray(head, "stop", "--address", head.dashboard, name)  # waits for the job's end
    assert "was stopped" in printed, printed
    return time.monotonic() - started


def test_a_training_that_is_stopped_saves_where_it_is(head, tmp_path):
    # One checkpoint in 50 epochs: what is there afterwards was saved because of the stop.
    arguments = ("digits-gaussian", "--workers", 2, "--training.epochs", 50, "--training.e_t", 1)
    keep = ("--checkpoint-every", 50, "--no-tracking")
    run("train", *arguments, *keep, "--out", tmp_path / "quiet", head=head)
    out = tmp_path / "stopped"
    submitted(head, "stop-train", "jobs.train", *arguments, *keep, "--out", out)
    wait_for(lambda: epochs_done(out) >= 3, 180)
    seconds = stopped(head, "stop-train")
    epochs = epochs_done(out)
    assert epochs < 50 and list((out / "state").iterdir()), "a checkpoint was left"
    printed, _ = run("train", *arguments, *keep, "--out", out, head=head)
    assert f"resuming: {epochs} of 50 epochs are done" in printed
    assert model_sha256(out) == model_sha256(tmp_path / "quiet")
    print(f"stopped within {seconds:.1f} s")
    assert seconds < GRACE + 15  # the grace, and what two calls of Ray's client take on a busy machine


def test_a_certification_that_is_stopped_has_all_that_it_drew(head, tmp_path):
    checkpoint = write_digits_checkpoint(tmp_path / "model")
    out = tmp_path / "stopped"
    arguments = (checkpoint, "--n", 40_000, "--max-images", 40, "--actors", 2, "--no-tracking", "--out")
    submitted(head, "stop-certify", "jobs.certify", *arguments, out)

    def lines():
        return sum(len(p.read_text().splitlines()) for p in (out / "ledger").glob("*.jsonl"))

    wait_for(lambda: (out / "ledger").exists() and lines() > 3, 180)
    stopped(head, "stop-certify")
    kept = lines()
    time.sleep(1)
    assert lines() == kept and not (out / "summary.json").exists()
    printed, _ = run("certify", *arguments, out, head=head)
    assert "resuming:" in printed
    run("certify", *arguments, tmp_path / "quiet", head=head)
    one, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("stopped", "quiet"))
    assert one["evaluations"] == other["evaluations"] and one["acr"] == other["acr"]
    assert one["evaluations_this_time"] < other["evaluations_this_time"], "what was drawn before the stop was kept"
    columns = [(tmp_path / n / "certificates.tsv").read_text().splitlines() for n in ("stopped", "quiet")]
    assert [line.split("\t")[:5] for line in columns[0]] == [line.split("\t")[:5] for line in columns[1]]
