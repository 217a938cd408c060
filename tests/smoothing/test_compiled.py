import pytest
import torch
from torch import nn

from acr_ray.models import build_model
from acr_ray.settings import UserError
from acr_ray.smoothing import compiled
from acr_ray.smoothing.arithmetic import Float32Linear, prepare
from acr_ray.smoothing.compiled import padded_size
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.plan import Phase


def test_batches_are_padded_by_at_most_half_and_to_few_sizes():
    sizes = {padded_size(rows) for rows in range(1, 5001)}
    assert all(rows <= padded_size(rows) <= max(1, 1.5 * rows) for rows in range(1, 5001))
    assert len(sizes) == 25 and padded_size(1000, (1000,)) == 1000


@pytest.mark.slow
def test_answers_do_not_depend_on_the_batches_met_before():
    network = build_model("digits_resnet", 10, (1, 8, 8), (0.5,), (0.5,), seed=0)
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))

    def counts(engine, draws=4000, block=500):
        return engine.count(image, "image", 0, Phase("estimate", draws, block), 0, draws // block).tolist()

    def engine():
        torch._dynamo.reset()
        return SamplingEngine(prepare(network, dtype="bfloat16", compiled=True, rows=(500,)), 10, 0.25)

    first = engine()
    alone = counts(first)
    for size in (20, 3, 2, 100, 400):
        counts(first, size, size)
    second = engine()
    for size in (400, 2, 20):
        counts(second, size, size)
    assert counts(first) == counts(second) == alone


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls, self.layer = 0, nn.Linear(4, 2)

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1)) * self.calls


@pytest.mark.slow
def test_a_network_that_is_compiled_anew_at_each_call_is_refused(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "MOST_GRAPHS", 2)
    network = prepare(Counting(), compiled=True)
    few = torch._dynamo.config.patch(recompile_limit=2)  # torch's own way: its settings do not survive another
    with few, pytest.raises(UserError, match="--compile: this network is compiled anew"):
        for _ in range(6):
            network(torch.rand(2, 1, 2, 2))


def test_a_missing_compiler_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="--compile: this machine has no C") as caught:
        prepare(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), compiled=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["digits_resnet", "cifar_resnet20"])
def test_logits_of_lower_precisions_are_hardly_ever_equal(architecture):
    shape = (1, 8, 8) if architecture.startswith("digits") else (3, 16, 16)
    network = build_model(architecture, 10, shape, (0.5,) * shape[0], (0.5,) * shape[0], seed=0)
    ready = prepare(network, dtype="bfloat16")
    assert any(isinstance(layer, Float32Linear) for layer in ready.modules())
    with torch.inference_mode():
        logits = ready(torch.randn(400, *shape))
    assert logits.dtype is torch.float32
    assert all(len(row.unique()) == 10 for row in logits)
    rounded = logits.bfloat16()
    assert sum(len(row.unique()) < 10 for row in rounded) > 8
