"""docs/models.md's denoised smoothing: a denoiser before a classifier that never saw noise certifies more."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.jobs import environment, run

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.slow
@pytest.mark.ray
def test_a_denoiser_certifies_more(tmp_path, head):
    shutil.copy(EXAMPLE / "denoised_digits.py", tmp_path)
    subprocess.run(
        [sys.executable, "denoised_digits.py", "weights"], cwd=tmp_path, env=environment(), check=True, timeout=600
    )
    found = {}
    for name in ("classifier", "denoised"):
        arguments = ["--model", f"denoised_digits:{name}", "--dataset", "digits", "--sigma", 0.5, "--n", 1000]
        arguments += ["--every", 2, "--no-tracking", "--out", tmp_path / name]
        run("certify", f"weights/{name}.pth", *arguments, head=head, cwd=tmp_path)
        found[name] = json.loads((tmp_path / name / "summary.json").read_text())
    print({name: (summary["acr"], summary["certified_accuracy"]) for name, summary in found.items()})
    without, with_denoiser = (found[name]["certified_accuracy"] for name in ("classifier", "denoised"))
    assert with_denoiser["0"] > without["0"] + 0.05
    assert with_denoiser["0.5"] > without["0.5"]
