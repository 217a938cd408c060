"""GPUs that Ray is told of and torch cannot use: one line, soon, and nothing is made."""

import subprocess
import sys

import pytest

from tests.fakes.jobs import environment
from tests.fakes.models import write_digits_checkpoint

pytestmark = pytest.mark.ray

ON_RAY = """
import sys
import ray
from acr_ray.cli.app import main
from acr_ray.cli.ray_session import loopback_only

with loopback_only():
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "WARNING"}
    ray.init(address="local", num_cpus=2, num_gpus=2, **options)
sys.exit(main(sys.argv[1:]))
"""
TUNE = ("tune", "digits", "--trials", 1, "--gpus-per-worker", 1)
TRAIN = ("train", "digits", "--gpus-per-worker", 1)
CERTIFY = ("certify", "model", "--n", 200, "--max-images", 4, "--gpus-per-actor", 1)


@pytest.mark.parametrize(
    "command",
    [(*TUNE, "--workers", 1), (*TUNE, "--workers", 2), TRAIN, CERTIFY, (*CERTIFY, "--block", "auto")],
    ids=["one worker", "two workers", "train", "certify", "certify --block auto"],
)
def test_a_gpu_that_torch_cannot_use_is_one_line_and_leaves_nothing(command, tmp_path):
    write_digits_checkpoint(tmp_path / "model")
    absent = environment() | {"CUDA_VISIBLE_DEVICES": "90,91"}  # no machine has so many
    words = [sys.executable, "-c", ON_RAY, *map(str, command), "--out", "results"]
    done = subprocess.run(words, env=absent, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: --gpus-per-")
    assert "finds no GPU that it can use on" in done.stderr
    assert {path.name for path in tmp_path.rglob("*")} <= {"model", "model.safetensors", "model.json", "results"}
