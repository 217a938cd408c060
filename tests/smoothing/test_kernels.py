from pathlib import Path

import pytest

from tests.fakes.interpreter import run_interpreted


def test_the_kernels_compute_what_torch_does_in_tritons_interpreter():
    run_interpreted(Path(__file__).parent, "not slow")


@pytest.mark.slow
def test_faults_planted_in_the_kernels_are_caught_in_tritons_interpreter():
    run_interpreted(Path(__file__).parent, "slow")
