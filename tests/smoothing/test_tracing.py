"""Networks are prepared in one thread while another asks another network."""

import threading

import torch

from acr_ray.data import open_images
from acr_ray.models import build_model
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.tracing import PASSES


def network():
    images = open_images("digits", None, "test")
    return build_model("digits_resnet", 10, images.shape, images.mean, images.std, seed=1)


def test_a_forward_pass_is_not_taken_for_a_part_of_what_another_thread_traces():
    engine = SamplingEngine(prepare(network()), 10, 0.25)
    image, phase = torch.full((1, 8, 8), 0.5), Phase("estimate", 400, 20)
    right = engine.count(image, "x", 0, phase, 0, 20)
    ended, wrong = threading.Event(), []

    def ask():
        while not ended.is_set():
            try:
                if (engine.count(image, "x", 0, phase, 0, 20) != right).any():
                    wrong.append("counts")
            except Exception as error:
                wrong.append(error)

    thread = threading.Thread(target=ask)  # an engine belongs to one thread
    thread.start()
    plain = network()
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = prepare(plain)(x)
    for _ in range(15):
        assert torch.equal(prepare(plain)(x), alone), "traced wrong, or not at all"
    ended.set()
    thread.join()
    assert not wrong, wrong[0]


def test_passes_run_at_once_and_tracing_alone():
    both, seen = threading.Barrier(2, timeout=10), []

    def passes():
        with PASSES.passing():
            both.wait()  # two are in here at once
            seen.append("pass")

    def traces():
        with PASSES.tracing():
            seen.append("traced")

    first = [threading.Thread(target=passes) for _ in range(2)]
    for thread in first:
        thread.start()
    for thread in first:
        thread.join()
    with PASSES.passing():
        tracing = threading.Thread(target=traces)
        tracing.start()
        tracing.join(0.1)
        assert seen == ["pass", "pass"], "it waits for the pass"
    tracing.join()
    assert seen[-1] == "traced"
