"""CIFAR-10's and ImageNet's layouts end to end on generated images: both recipes, two workers, the real networks."""

import json

import pytest

from tests.fakes.images import write_cifar10, write_imagenet
from tests.fakes.jobs import run

pytestmark = pytest.mark.ray

FEW = ("--workers", 2, "--no-tracking", "--training.milestones", "", "--attack.steps", 1)


def check(folder, architecture, images, epochs):
    card = json.loads((folder / "train" / "checkpoint" / "model.json").read_text())
    assert card["architecture"] == architecture
    records = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == epochs
    summary = json.loads((folder / "certify" / "summary.json").read_text())
    assert summary["images"] == images and summary["model_sha256"] == card["sha256"]
    return records


@pytest.mark.slow
def test_cifar10_resnet110(head, tmp_path):
    """Its paths are relative: the workers have another working directory."""
    write_cifar10(tmp_path / "data", per_batch=8, test=8)
    arguments = ["--data.root", "data", "--training.batch_size", 32, "--training.epochs", 2, *FEW]
    ours = ["--training.e_t", 1, "--discard.draws", 4, "--discard.p_t", 0.01, "--reweigh.draws", 4]
    run("train", "cifar10-0.5", "--out", "train", *arguments, *ours, head=head, cwd=tmp_path)
    run(
        "certify",
        "train",
        "--out",
        "certify",
        "--data.root",
        "data",
        "--n",
        20,
        "--n0",
        5,
        "--block",
        20,
        "--max-images",
        3,
        "--no-tracking",
        head=head,
        cwd=tmp_path,
    )
    records = check(tmp_path, "cifar_resnet110", 3, epochs=2)
    assert "discard_hard_share" in records[1] and "attack_active" in records[1] and "reweigh_p_a_mean" in records[1]


@pytest.mark.slow
def test_imagenet_resnet50_with_a_gaussian_model_that_discards(head, tmp_path):
    root = write_imagenet(tmp_path / "data", classes=2, train=4, val=3)
    arguments = ["--data.root", root, "--training.batch_size", 4, "--training.epochs", 1, *FEW]
    run(
        "train",
        "imagenet-gaussian-0.5",
        "--out",
        tmp_path / "gaussian",
        *arguments,
        "--data.loader_workers",
        1,
        head=head,
    )
    ours = ["--discard.checkpoint", tmp_path / "gaussian", "--discard.draws", 4, "--discard.p_t", 0.1]
    run("train", "imagenet-0.5", "--out", tmp_path / "train", *arguments, *ours, "--data.loader_workers", 0, head=head)
    options = ["--n", 10, "--n0", 2, "--block", 10, "--no-tracking", "--split", "test"]
    where = ("--data.root", root, "--out", tmp_path / "certify")
    run("certify", tmp_path / "train", *where, "--every", 4, *options, head=head)
    records = check(tmp_path, "resnet50", 2, epochs=1)
    assert "discard_hard_share" in records[0] and "attack_active" in records[0]
