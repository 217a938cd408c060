"""The commands as functions: what a Python program gets back, and that it resumes as the command line does."""

import json
import subprocess
import sys

import pytest

from tests.fakes.jobs import environment, run

PROGRAM = """
import json
from acr_ray.cli.commands import certify, report, train
from acr_ray.cli.session import RunOptions
from acr_ray.settings import load_recipe
from acr_ray.training.workers import CheckpointPolicy, Workers

def options(name):
    return RunOptions(name, tracking=False)

recipe = load_recipe("digits-gaussian").scaled(2)
trained = train.run(recipe, options("run"), workers=Workers(1), seed=3, policy=CheckpointPolicy(every=2))
certified = certify.run(trained.checkpoint, options("cert"), settings={"n": 200, "max_images": 10}, actors=(1, 1))
again = certify.run(trained.checkpoint, options("cert"), settings={"n": 200, "max_images": 10}, actors=(1, 1))
compared = report.run([f"ours={certified.folder}"], options("report"), radii=[0.0, 0.5])
print(json.dumps([
    [trained.done_before, certified.done_before, again.done_before], again.summary == certified.summary,
    certified.summary["images"], compared.summary["sources"][0]["acr"] == certified.summary["acr"],
    "ours" in compared.table, compared.page, trained.summary["seed"], len(compared.verdicts),
]))
"""


@pytest.mark.ray
def test_a_program_trains_certifies_and_compares(head, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment(head), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    returned = json.loads(done.stdout.splitlines()[-1])
    assert returned == [[False, False, True], True, 10, True, True, f"{tmp_path}/report/report.html", 3, 0]
    # The command line finds the same run: what a program has done need not be done again.
    same = ("train", "digits-gaussian", "--scale-epochs", 2, "--out", "run", "--seed", 3, "--no-tracking")
    printed, _ = run(*same, head=head, cwd=tmp_path)
    assert "epoch" not in printed and f"trained: {tmp_path}/run/checkpoint" in printed
