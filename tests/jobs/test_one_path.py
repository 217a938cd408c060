"""The whole path once through real jobs on a real Ray: two training workers, two samplers, the report."""

import json

import pytest

from tests.fakes.jobs import run

pytestmark = [pytest.mark.ray, pytest.mark.smoke]


def test_train_certify_report(head, tmp_path):
    store = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    printed, _ = run(
        "train", "--out", "run", "digits", "--scale-epochs", 2, "--workers", 2, *store, head=head, cwd=tmp_path
    )
    assert "epoch 2/2" in printed and "next: python -m jobs.certify" in printed
    card = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    draws = ("--n", 200, "--max-images", 20, "--actors", 2)
    run("certify", "run", "--out", "certified", *draws, *store, head=head, cwd=tmp_path)
    certified = json.loads((tmp_path / "certified" / "summary.json").read_text())
    assert certified["images"] == 20 and certified["model_sha256"] == card["sha256"]
    assert certified["evaluations"] == 20 * (100 + 200)
    printed, _ = run("report", "ours=certified", "--out", "report", *store, head=head, cwd=tmp_path)
    told = json.loads((tmp_path / "report" / "summary.json").read_text())["sources"][0]
    assert told["name"] == "ours" and told["acr"] == pytest.approx(certified["acr"])
    assert "constant class" in printed and (tmp_path / "report" / "report.html").is_file()
