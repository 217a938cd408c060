"""Real nodes with something wrong: storage that only the head sees, /dev/shm full. A line from jobs.doctor, and from
the jobs themselves."""

import json

import pytest

from tests.fakes.jobs import run
from tests.fakes.models import write_digits_checkpoint
from tests.fakes.nodes import OddNode, cannot_unshare

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster():
    from acr_ray.cli.private_head import PrivateHead

    if reason := cannot_unshare():
        pytest.skip(reason)
    # The head computes nothing: every worker is on the odd node.
    with PrivateHead(cpus=0) as head:
        yield head


def test_storage_that_only_the_head_sees(cluster, tmp_path):
    (tmp_path / "shared").mkdir()
    node = OddNode(cluster, tmp_path / "node.log", cpus=2, hidden=tmp_path / "shared")
    try:
        storage = tmp_path / "shared" / "runs"
        few = ("--training.epochs", 2, "--training.milestones", "", "--training.e_t", 1)
        found, err = run(
            "doctor", "--storage", storage, "--no-tracking", "--out", tmp_path / "found", head=cluster, code=1
        )
        (line,) = [line for line in found.splitlines() if line.startswith("FAILED")]
        assert "storage" in line and "does not see what the driver wrote there" in line and "s3://" in line
        assert err.strip() == "failed: 1 of 8 checks: storage; the lines above say what to do"
        checks = json.loads((tmp_path / "found" / "summary.json").read_text())["checks"]
        assert [c["check"] for c in checks if c["status"] == "FAILED"] == ["storage"]
        assert not list(storage.iterdir()), "the doctor takes its probes away"
        for workers in (1, 2):
            train = ("train", "digits-gaussian", *few, "--workers", workers)
            _, err = run(*train, "--out", storage / f"t{workers}", "--no-tracking", head=cluster, code=2)
            assert err.count("\n") == 1 and "does not see what the driver wrote there" in err
        search = ("tune", "digits", *few, "--trials", 1, "--no-trunk", "--space", "attack.epsilon=0.1,0.2")
        _, err = run(*search, "--out", storage / "search", "--no-tracking", head=cluster, code=2)
        assert err.count("\n") == 1 and "does not see what the driver wrote there" in err
    finally:
        node.close()


def test_a_full_shared_memory(cluster, tmp_path):
    checkpoint = write_digits_checkpoint(tmp_path / "model")
    node = OddNode(cluster, tmp_path / "node.log", cpus=2, shared_memory=100)
    try:
        found, _ = run("doctor", "--no-tracking", head=cluster, code=1)
        (line,) = [line for line in found.splitlines() if line.startswith("FAILED")]
        assert "/dev/shm" in line and "has 2 MiB free of 100 MiB" in line and "shm_size" in line
        train = ("train", "digits-gaussian", "--training.epochs", 2, "--training.milestones", "", "--training.e_t", 1)
        _, err = run(*train, "--workers", 2, "--out", tmp_path / "t", "--no-tracking", head=cluster, code=2)
        assert err.count("\n") == 1 and "/dev/shm on" in err and "has 2 MiB free of 100 MiB" in err
        certify = ("certify", checkpoint, "--out", tmp_path / "c", "--n", 100, "--max-images", 2, "--no-tracking")
        _, err = run(*certify, head=cluster, code=2)
        assert err.count("\n") == 1 and "/dev/shm on" in err
    finally:
        node.close()
