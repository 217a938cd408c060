"""A newcomer's own network and data: by the command over two actors, and by five lines of Python; the same counts."""

import json
import subprocess
import sys

import pytest

from tests.fakes.jobs import environment, run
from tests.fakes.mine import write_mine

pytestmark = pytest.mark.ray

FIVE_LINES = """
import acr_ray
from {mine} import images, network
result = acr_ray.certify(network(), images("test"), sigma=0.5, n=400, n0=40, name="{mine}:images", out="python"{more})
print(result.acr, result.certified_accuracy(0.5), result.p_a.mean(), len(result.to_pandas()))
result.plot().save("certified.png")
"""
NOTEBOOK = """
import json, torch
from torch import nn
import acr_ray
from {mine} import images

class Typed(nn.Module):  # of this process alone: no actor could import it
    def forward(self, x):
        return x.sum((1, 2)).unflatten(1, (4, 2)).sum(2)

trained = acr_ray.train("digits-gaussian", epochs=1, out="trained")
own = acr_ray.train("digits-gaussian", dataset=images, model="cifar_resnet20", epochs=1, out="own")
on_ray = acr_ray.certify(Typed(), images, sigma=0.5, n=400, n0=40, actors=(1, 2), out="typed")
here = acr_ray.certify(Typed(), images, sigma=0.5, n=400, n0=40, ray=False, out="typed-here")
digits = acr_ray.certify(trained.checkpoint, n=100, n0=20, max_images=8, out="digits")
counts = [[list(map(int, row)) for row in result.to_pandas()["counts"]] for result in (on_ray, here)]
print(json.dumps([
    counts[0] == counts[1],
    on_ray.summary["arithmetic"] == here.summary["arithmetic"], "python:Typed" in on_ray.summary["arithmetic"],
    digits.summary["images"], acr_ray.load("trained").summary["seed"], "recipe" in trained._repr_html_(),
    trained.smoothed().engine.num_classes, own.summary["settings"]["data"]["dataset"],
]))
"""


def python(text, head, cwd):
    (cwd / "program.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=cwd, env=environment(head), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def counts(folder):
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "certificates.parquet")
    return dict(zip(table["image"].to_pylist(), table["counts"].to_pylist(), strict=True))


def test_two_actors_and_five_lines_have_the_same_counts(head, tmp_path):
    mine = write_mine(tmp_path)
    draws = ("--sigma", 0.5, "--n", 400, "--n0", 40, "--actors", 2, "--no-tracking")
    printed, _ = run(
        "certify", f"{mine}:network", "--dataset", f"{mine}:images", "--out", "jobs", *draws, head=head, cwd=tmp_path
    )
    assert "checked 24 images" in printed and "2 actors" in printed
    told = python(FIVE_LINES.format(mine=mine, more=""), None, tmp_path)
    assert "drawing in this process" in told and (tmp_path / "certified.png").is_file()
    assert counts(tmp_path / "jobs") == counts(tmp_path / "python") and len(counts(tmp_path / "jobs")) == 24
    here, there = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("python", "jobs"))
    for field in ("acr", "certified_accuracy", "hard_share", "model_sha256", "settings_sha256", "evaluations"):
        assert here[field] == there[field], field


def test_what_lives_in_one_process_reaches_the_actors(head, tmp_path):
    mine = write_mine(tmp_path)
    told = python(NOTEBOOK.format(mine=mine), head, tmp_path)
    assert json.loads(told.splitlines()[-1]) == [True, True, True, 8, 0, True, 10, f"{mine}:images"]
