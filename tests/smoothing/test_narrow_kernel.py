"""Run the tests of the Triton kernels in Triton's interpreter, which needs no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_kernels_compute_what_torch_does_in_tritons_interpreter():
    # Not the test's own import: Triton asks the environment only once.
    pytest.importorskip("triton", reason="Triton is not installed: it comes with torch's builds for CUDA")
    tests = Path(__file__).with_name("interpreted_kernels.py")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(tests)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0 and " passed" in found.stdout, found.stdout[-6000:] + found.stderr[-2000:]
    assert "skipped" not in found.stdout
