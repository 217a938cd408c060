"""Certification on a real cluster: any number of actors, killed actors, a killed driver; always the same counts."""

import json
import os
import random
import signal

import pyarrow.parquet as pq
import pytest
import torch

from acr_ray.data import open_images, select
from acr_ray.models import load_checkpoint, save_checkpoint
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.storage import Folder
from tests.fakes.jobs import below, run, start, wait_for
from tests.fakes.models import write_digits_checkpoint

pytestmark = pytest.mark.ray

IMAGES, N = 40, 40_000
OPTIONS = ("--max-images", IMAGES, "--n", N, "--seed", 5, "--no-tracking")
EVALUATIONS = IMAGES * (100 + N)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Its last layer is made a little more sure of itself: answers of all kinds."""
    return write_digits_checkpoint(tmp_path_factory.mktemp("model"), sharper=3)


def counts(out):
    table = pq.read_table(out / "certificates.parquet").drop_columns(["seconds"])
    return table.to_pylist()


def tsv(out):
    return [line.rsplit("\t", 1)[0] for line in (out / "certificates.tsv").read_text().splitlines()]


def samplers(head):
    return below(head.pid, "ray::Sampler")


@pytest.fixture(scope="module")
def undisturbed(head, checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    run("certify", checkpoint, "--out", out, *OPTIONS, "--actors", 2, head=head)
    return out


def test_counts_equal_those_of_the_classifier_without_ray(undisturbed, checkpoint):
    torch.set_num_threads(1)
    model, card = load_checkpoint(str(checkpoint))
    images = select(open_images("digits", None, "test"), max_images=IMAGES)
    rows = counts(undisturbed)
    assert len({row["predicted"] for row in rows}) > 1 and len(rows) == IMAGES
    for position in (0, 7, IMAGES - 1):
        smoothed = SmoothedClassifier(model, 10, card.sigma, seed=5, grid=16)
        name = images.names[position]
        found = smoothed.certify(images.load([position], None)[0], n0=100, n=N, alpha=0.001, name=name)
        row = rows[position]
        assert (row["image"], row["predicted"], row["count_top"]) == (name, found.predicted, found.count_top)
        assert row["outcome"] == ("abstained" if found.abstained else "certified")


@pytest.mark.parametrize("actors", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_any_number_of_actors_gives_the_same_counts(head, checkpoint, undisturbed, tmp_path, actors):
    run("certify", checkpoint, "--out", tmp_path, *OPTIONS, "--actors", actors, head=head)
    assert counts(tmp_path) == counts(undisturbed)
    assert tsv(tmp_path) == tsv(undisturbed)


def test_actors_killed_at_random_change_nothing(head, checkpoint, undisturbed, tmp_path):
    process = start("certify", checkpoint, "--out", tmp_path, *OPTIONS, "--actors", 3, head=head)
    rng, killed = random.Random(0), 0
    for files in (1, 2):
        wait_for(lambda files=files: len(list((tmp_path / "ledger").glob("*.jsonl"))) >= files, process=process)
        alive = samplers(head)
        if alive:
            os.kill(rng.choice(alive).pid, signal.SIGKILL)
            killed += 1
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    assert killed >= 1
    assert counts(tmp_path) == counts(undisturbed)


def test_a_killed_driver_goes_on_and_draws_nothing_twice(head, checkpoint, undisturbed, tmp_path):
    arguments = ("certify", checkpoint, "--out", tmp_path, *OPTIONS, "--actors", 2)
    process = start(*arguments, head=head)
    wait_for(lambda: len(list((tmp_path / "ledger").glob("*.jsonl"))) >= 2, process=process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "summary.json").exists()
    lines = [line for file in (tmp_path / "ledger").glob("*.jsonl") for line in file.read_text().splitlines()]
    spans = [json.loads(line) for line in lines]
    written = sum((span["stop"] - span["first"]) * (100 if span["phase"] == "select" else 500) for span in spans)
    assert 0 < written < EVALUATIONS
    printed, _ = run(*arguments, head=head)
    assert f"resuming: {written:,} noise draws" in printed
    assert counts(tmp_path) == counts(undisturbed)
    assert tsv(tmp_path) == tsv(undisturbed)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["evaluations"] == EVALUATIONS
    assert summary["evaluations_this_time"] == EVALUATIONS - written
    again, _ = run(*arguments, head=head)
    assert "noise draws" not in again


@pytest.mark.slow
def test_a_block_chosen_by_measurement_is_the_runs_from_then_on(head, checkpoint, tmp_path):
    options = ("certify", checkpoint, "--out", tmp_path, "--max-images", 4, "--n", 2000, "--no-tracking", "--actors", 1)
    printed, _ = run(*options, "--block", "auto", head=head)
    chosen = int(json.loads((tmp_path / "run.json").read_text())["identity"]["block"])
    assert f"block {chosen}, by measurement" in printed
    again, _ = run(*options, "--block", "auto", head=head)
    assert "by measurement" not in again
    assert {row["block"] for row in counts(tmp_path)} == {chosen}
    _, error = run(*options, "--block", chosen + 1, head=head, code=2)
    assert "block was" in error
    _, error = run(*options, "--block", "car", head=head, code=2)
    assert "block" in error and len(error.strip().splitlines()) == 1


def test_a_model_that_answers_infinity_to_the_measurement_of_its_block_is_one_line(head, tmp_path):
    network, card = load_checkpoint(str(write_digits_checkpoint(tmp_path / "model")))
    network[-1].fc.weight.data.fill_(3e38)  # finite, as a checkpoint must be; its sums are not
    save_checkpoint(Folder(tmp_path / "model"), network, card)
    options = ("--out", tmp_path / "c", "--max-images", 4, "--n", 200, "--no-tracking", "--block", "auto")
    _, error = run("certify", tmp_path / "model", *options, head=head, code=1)
    assert error == "failed: the model answers with NaN or infinite logits\n" and not (tmp_path / "c").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stopping", [("--stopping", "radii", "--radii", "0,0.25,0.5"), ("--stopping", "width")])
def test_images_that_stop_at_their_own_time_are_the_same_after_a_kill(head, checkpoint, tmp_path, stopping):
    """One actor undisturbed; three actors, one of them killed, the driver too."""
    quiet, out = tmp_path / "quiet", tmp_path / "out"
    options = (*OPTIONS[:3], 1_000_000, *OPTIONS[4:], *stopping)
    run("certify", checkpoint, "--out", quiet, *options, "--actors", 1, head=head)
    arguments = ("certify", checkpoint, "--out", out, *options, "--actors", 3)
    process = start(*arguments, head=head)
    wait_for(lambda: len(list((out / "ledger").glob("*.jsonl"))) >= 1, process=process)
    for sampler in samplers(head)[:1]:
        os.kill(sampler.pid, signal.SIGKILL)
    process.kill()
    process.communicate()
    run(*arguments, head=head)
    assert counts(out) == counts(quiet) and tsv(out) == tsv(quiet)
    numbers = [json.loads((folder / "summary.json").read_text()) for folder in (out, quiet)]
    assert numbers[0]["evaluations"] == numbers[1]["evaluations"] < IMAGES * 1_000_000 / 5
    assert numbers[0]["stopping"] == stopping[1] and not numbers[0].get("incomplete")
