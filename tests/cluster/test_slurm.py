"""cluster/slurm/acr-ray.sbatch under a real SLURM of two nodes."""

import pytest

from tests.cluster.slurm import Slurm, missing
from tests.fakes.jobs import epochs_done

WHY_NOT = missing()
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.timeout(1200)]

TRAIN = (
    "python",
    "-m",
    "jobs.train",
    "digits-gaussian",
    "--training.epochs",
    60,
    "--training.milestones",
    "10",
    "--workers",
    2,
    "--seed",
    3,
    "--no-tracking",
)


@pytest.fixture(scope="module")
def slurm():
    running = Slurm()
    yield running
    running.end()


def rays(slurm):
    return [process for host in (slurm.node1, slurm.node2) for process in host.processes("raylet/raylet")]


def test_a_job_that_gets_sigterm_saves_and_the_same_command_goes_on(slurm):
    out = slurm.shared / "run"
    job, log = slurm.submit(*TRAIN, "--out", out)
    slurm.until(lambda: epochs_done(out) >= 5 or slurm.over(job), 500, "five epochs", log)
    assert not slurm.over(job), log.read_text()
    workers = [len(host.processes("RayTrainWorker")) for host in (slurm.node1, slurm.node2)]
    assert workers == [1, 1], "one on each node of the allocation"
    tokens = list((slurm.shared / "runs" / str(job)).glob("token"))
    assert len(tokens) == 1 and tokens[0].stat().st_mode & 0o777 == 0o600
    secret = tokens[0].read_text()
    assert len(secret) == 64
    lines = [" ".join(p.cmdline()) for host in (slurm.node1, slurm.node2) for p in host.processes()]
    assert not any(secret in line for line in lines), "command lines are public"

    slurm.ask("scancel", "--batch", "--signal=TERM", job)  # what the time limit sends, two minutes before
    slurm.wait(job, log, 90)
    assert slurm.exit_code(job) == 143, log.read_text()
    done = epochs_done(out)
    assert 5 <= done < 60 and not (out / "summary.json").exists()
    assert not tokens[0].exists()
    slurm.until(lambda: not rays(slurm), 60, "the end of all Rays", log)

    again, second = slurm.submit(*TRAIN, "--out", out)
    slurm.wait(again, second)
    assert slurm.exit_code(again) == 0 and slurm.state(again) == "COMPLETED", second.read_text()
    assert "resuming: " in second.read_text() and "epoch 1/60" not in second.read_text()
    assert epochs_done(out) == 60 and (out / "summary.json").exists()
    slurm.until(lambda: not rays(slurm), 60, "the end of all Rays", second)


def test_a_command_that_fails_ends_the_job_with_its_code(slurm):
    job, log = slurm.submit("python", "-m", "jobs.train", "no-such-recipe", "--out", slurm.shared / "none")
    slurm.wait(job, log)
    assert slurm.exit_code(job) == 2 and "no-such-recipe" in log.read_text()
