"""jobs.bench certify: its figures, and that what it times does what it says."""

import argparse
import json

import numpy as np
import pytest
import torch

from acr_ray.settings import UserError
from acr_ray.smoothing.int8_network import Int8Network, int8_problem
from jobs.benchmarks import certify, certify_looks, certify_works
from jobs.benchmarks.figures import alternate, figure, ratios
from jobs.benchmarks.processes import Worker, together
from tests.fakes.jobs import run


def test_figures_have_median_extremes_and_number():
    assert figure([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "runs": 3}
    assert ratios([2.0, 9.0], [1.0, 3.0])["median"] == 2.5
    order = []
    alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "abbaab"


def test_the_loops_compared_draw_as_often_and_see_the_same_noise_level(monkeypatch):
    """Cohen's loop passes n noisy rows; the engine too, but for the surplus of its last block."""
    seen = {"rows": 0, "spread": []}

    class Watching(torch.nn.Module):
        def forward(self, x):
            seen["rows"] += len(x)
            seen["spread"].append(float((x - x.mean(0)).std()))
            return torch.zeros(len(x), 10)

    monkeypatch.setattr(certify_works, "model_in", lambda *args: Watching())
    for work in (
        lambda: certify_works.cohen("digits_resnet", 2500, "cpu", 1000),
        lambda: certify_works.engine("digits_resnet", 2500, "cpu", 500, "float32"),
    ):
        seen.update(rows=0, spread=[])
        assert work() > 0
        assert seen["rows"] == 2500 and np.allclose(seen["spread"], certify_works.SIGMA, rtol=0.02)


def test_workers_have_their_own_environment_and_say_what_failed():
    with Worker("os", {"ACR_RAY_TEST_MARK": "1"}) as a, Worker("os", {}) as b:
        assert together((a, "getenv", {"key": "ACR_RAY_TEST_MARK"}), (b, "getenv", {"key": "ACR_RAY_TEST_MARK"})) == [
            "1",
            None,
        ]
        with pytest.raises(RuntimeError, match="FileNotFoundError"):
            a.call("listdir", path="/no/such/folder")
        assert a.call("getpid") != b.call("getpid")


@pytest.mark.slow
def test_memory_does_not_grow_with_n():
    with Worker(certify_works.__name__, {}) as few, Worker(certify_works.__name__, {}) as many:
        small, large = few.call("memory", n=2000, device="cpu"), many.call("memory", n=200_000, device="cpu")
    assert large < small + 10, "200,000 draws of 64 floats are 51 MB"


@pytest.mark.slow
def test_the_command_ends_with_one_json_object():
    printed, _ = run("bench", "certify", "--quick")
    found = json.loads(printed.splitlines()[-1])
    model = found["models"]["cifar_resnet20"]
    for name in ("share_of_forward", "vs_cohen", "peak_mb"):
        assert set(model[name]) == {"median", "min", "max", "runs"}
    assert found["device"] and found["versions"]["torch"] == torch.__version__ and found["settings"]["quick"] is True
    assert model["share_of_forward"]["max"] > 0.5 and model["vs_cohen"]["max"] > 1


def test_bad_benchmarks_are_one_line():
    _, error = run("bench", "certifi", code=2)
    assert error.strip() == "error: BENCHMARK certifi: unknown; allowed: certify" or "allowed: certify" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.skipif(int8_problem() is not None, reason=str(int8_problem()))
def test_int8_is_measured_on_cpus(capsys):
    assert certify_works.engine("digits_resnet", 400, "cpu", 100, "int8") > 0
    assert isinstance(certify_works.model_in("prepared", "digits_resnet", "cpu", "int8"), Int8Network)
    with pytest.raises(UserError, match="arithmetic of CPUs"):
        certify.run(
            argparse.Namespace(simulate=False, models="x", quick=True, n=1, rounds=1, dtype="int8", device="cuda")
        )


def test_passes_that_images_share_are_fewer_for_the_same_draws():
    call = {"images": 12, "n": 2000, "block": 500, "device": "cpu", "dtype": "float32"}
    own, shared = (certify_looks.run(shared=way, **call) for way in (False, True))
    assert shared["draws"] == own["draws"] == own["rows"] and shared["rows"] == 100 * shared["passes"]
    assert shared["passes"] < 0.8 * own["passes"] and min(own["seconds"], shared["seconds"]) > 0
