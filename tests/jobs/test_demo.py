"""The demo as a newcomer runs it, through ``ray job submit`` on its own private head."""

import json

import pytest

from tests.fakes.jobs import run


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(2000)
def test_the_demo_shows_what_the_paper_says(tmp_path):
    printed, _ = run("demo", "--out", tmp_path)
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    gaussian, ours = summary["sources"]
    assert (gaussian["name"], ours["name"]) == ("digits-gaussian", "digits")
    assert (ours["sigma"], ours["n"], ours["alpha"]) == (0.5, 10_000, 0.001) and ours["images"] >= 360
    assert ours["acr"] > gaussian["acr"], "the recipe is made for ACR"
    assert ours["hard_share"] > gaussian["hard_share"] + 0.05, "and pays with hard samples"
    assert ours["certified_accuracy"]["0"] < gaussian["certified_accuracy"]["0"]
    constant = summary["constant"]
    assert constant["certified_accuracy"]["0"] == pytest.approx(0.1, abs=0.02) and 0.1 < constant["acr"] < 0.2
    for word in ("ray job submit", "constant class", "hard", "report.html", "mlflow ui"):
        assert word in printed
    assert (tmp_path / "report" / "report.html").exists()
    again, _ = run("demo", "--out", tmp_path)
    assert "epoch" not in again and "constant class" in again
