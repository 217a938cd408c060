"""Results in a bucket: every job with s3:// as its --out, its drivers killed, compared with the same on a disk."""

import io
import json
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from acr_ray.cli.private_head import PrivateHead
from acr_ray.storage import Folder
from tests.certification.test_faults import counts, tsv
from tests.fakes.jobs import model_sha256, run, start, wait_for
from tests.services.stack import BUCKET, S3
from tests.training.test_faults import history

pytestmark = [pytest.mark.services, pytest.mark.ray, pytest.mark.timeout(900)]

EPOCHS = 30
TRAIN = (
    "digits",
    "--training.epochs",
    EPOCHS,
    "--training.e_t",
    4,
    "--training.milestones",
    "15",
    "--reweigh.every",
    4,
)
CERTIFY = ("--max-images", 60, "--n", 40_000, "--actors", 2, "--seed", 5)
QUIET = ("--no-tracking",)


class Bucket:
    """A store, and a Ray whose nodes know where it is and with which keys, as from an instance profile."""

    def __init__(self, store: S3, head: PrivateHead) -> None:
        self.store, self.head = store, head

    def uri(self, name: str) -> str:
        return f"s3://{BUCKET}/runs/{name}"

    def lines(self, name: str, file: str) -> list[str]:
        folder = Folder(self.uri(name))
        return folder.read_text(file).splitlines() if folder.is_file(file) else []

    def fetched(self, name: str, to: Path) -> Path:
        """A copy of a run on the disk."""
        prefix = f"runs/{name}/"
        for key in [key for key in self.store.names() if key.startswith(prefix) and not key.endswith("/")]:
            path = to / name / key.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.store.client.download_file(BUCKET, key, str(path))
        return to / name


@pytest.fixture(scope="module")
def bucket():
    store = S3()
    kept = dict(os.environ)
    os.environ.update(store.environment | {"AWS_ENDPOINT_URL": store.url})
    try:
        with PrivateHead(cpus=4) as head:
            yield Bucket(store, head)
    finally:
        os.environ.clear()
        os.environ.update(kept)
        store.close()


def killed(bucket, condition, *arguments):
    """Start a job and kill its driver once the condition holds."""
    process = start(*arguments, head=bucket.head)
    wait_for(condition, process=process)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def trained(bucket, tmp_path_factory):
    """The name of a training in the bucket whose driver was killed and that went on, and the same on a disk."""
    here = tmp_path_factory.mktemp("here") / "trained"
    run("train", *TRAIN, *QUIET, "--workers", 2, "--out", here, head=bucket.head)
    there = ("train", *TRAIN, *QUIET, "--workers", 2, "--out", bucket.uri("trained"))
    killed(bucket, lambda: len(bucket.lines("trained", "metrics.jsonl")) >= 3, *there)
    printed, _ = run(*there, head=bucket.head)
    assert "resuming" in printed
    return "trained", here


def test_a_training_in_a_bucket_goes_on_to_the_same_weights(bucket, trained, tmp_path):
    name, here = trained
    copy = bucket.fetched(name, tmp_path)
    assert model_sha256(copy) == model_sha256(here)
    assert history(copy) == history(here) and len(history(copy)) == EPOCHS
    assert sorted(p.name for p in copy.iterdir()) == sorted(p.name for p in here.iterdir()), "nothing is left behind"


def test_a_certification_from_bucket_to_bucket_goes_on_to_the_same_counts(bucket, trained, tmp_path):
    name, here = trained
    run("certify", here, *CERTIFY, *QUIET, "--out", tmp_path / "here", head=bucket.head)
    there = ("certify", bucket.uri(name), *CERTIFY, *QUIET, "--out", bucket.uri("certified"))
    ledger = Folder(bucket.uri("certified/ledger"))
    killed(bucket, lambda: len(ledger.names(".jsonl")) > 0, *there)
    run(*there, head=bucket.head)
    copy = bucket.fetched("certified", tmp_path)
    assert counts(copy) == counts(tmp_path / "here") and tsv(copy) == tsv(tmp_path / "here")

    printed, _ = run("report", f"a={bucket.uri('certified')}", *QUIET, "--out", bucket.uri("report"), head=bucket.head)
    found = json.loads("\n".join(bucket.lines("report", "summary.json")))["sources"][0]
    assert found["images"] == 60 and "report.html" in printed


def test_a_search_in_a_bucket(bucket):
    short = ("--training.epochs", 6, "--training.e_t", 2, "--training.milestones", "4", "--reweigh.every", 2)
    space = ("--space", "training.e_t=2,3", "--search", "grid", "--trials", 2, "--validation-n", 200)
    run("tune", "digits", *short, *space, *QUIET, "--out", bucket.uri("search"), head=bucket.head)
    rows = pq.read_table(io.BytesIO(Folder(bucket.uri("search")).read_bytes("trials.parquet"))).to_pylist()
    assert [row["training.e_t"] for row in rows] == [2, 3]
    assert all(row["status"] in ("finished", "stopped") for row in rows)


def test_the_doctor_writes_to_the_bucket_from_every_node_and_cleans_up(bucket):
    printed, _ = run("doctor", "--storage", bucket.uri("later"), *QUIET, head=bucket.head)
    (line,) = [line for line in printed.splitlines() if "storage" in line]
    assert line.startswith("ok") and not [k for k in bucket.store.names() if "later/" in k and not k.endswith("/")]


def test_keys_that_the_store_refuses_are_a_line(bucket, tmp_path):
    nowhere = ("--out", f"s3://no-such-bucket-{os.getpid()}/run")
    _, err = run("train", *TRAIN, *QUIET, *nowhere, head=bucket.head, code=2)
    assert err.count("\n") == 1 and "--out s3://no-such-bucket" in err
