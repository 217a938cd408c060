from pathlib import Path

from tests.fakes.interpreter import run_interpreted


def test_the_kernels_compute_what_torch_does_in_tritons_interpreter():
    run_interpreted(Path(__file__).parent, "not slow")
