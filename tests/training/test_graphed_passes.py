"""Who replays what, and where gradients go. Graphs are pretended here; on a card make gpu-test compares to the bit."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from acr_ray.settings.recipe import AttackSettings
from acr_ray.training import graphed_passes
from acr_ray.training.graphed import WARM_UP, GraphedAttack
from acr_ray.training.graphed_passes import GraphedForward, GraphedPasses
from acr_ray.training.passes import PassCounter


class Replayed:
    """A graph whose replay does what was captured, eagerly."""

    def __init__(self, work):
        self.work, self.replays = work, 0

    def replay(self):
        self.replays += 1
        self.work()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))


def pretended(monkeypatch):
    """Captures that keep memory as real ones do, and replay by computing into it."""

    def capture(self, x):
        inner = copy.deepcopy(self._network)
        inner._forward_hooks.clear()
        own, parameters = list(inner.parameters()), list(self._network.parameters())
        inputs, logits = x.detach().clone(), torch.zeros(len(x), 3)
        of_logits, gradients = torch.zeros(len(x), 3), [torch.zeros_like(p) for p in parameters]
        kept = {}

        def forward():
            with torch.no_grad():
                for mine, theirs in zip(own, parameters, strict=True):
                    mine.copy_(theirs)
            with torch.enable_grad():
                kept["logits"] = inner(inputs)
            logits.copy_(kept["logits"].detach())

        def backward():
            found = torch.autograd.grad(kept["logits"], own, of_logits)
            for memory, value in zip(gradients, found, strict=True):
                memory.copy_(value)

        return graphed_passes._Captured(
            Replayed(forward), Replayed(backward), inputs, logits, of_logits, parameters, gradients
        )

    monkeypatch.setattr(GraphedPasses, "_capture", capture)


def stepped(model, given):
    """Gradients of a step that passes batches one after the other and then goes backward once."""
    loss = sum(model(x).square().sum() for x in given)
    loss.backward()


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_the_first_pass_of_a_step_replays_and_gradients_are_those_of_all(calls, monkeypatch):
    pretended(monkeypatch)
    plain, graphed = network(), network()
    counter = PassCounter(graphed)
    passes = GraphedPasses(graphed, counter)
    for step in range(3):
        given = [torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(10 * step + k)) for k in range(calls)]
        for one in (plain, graphed):
            one.zero_grad(set_to_none=True)
        stepped(plain, given)
        stepped(passes.step(), given)
        for a, b in zip(plain.parameters(), graphed.parameters(), strict=True):
            torch.testing.assert_close(b.grad, a.grad)
        with torch.no_grad():
            for a, b in zip(plain.parameters(), graphed.parameters(), strict=True):
                a -= 0.1 * a.grad
                b -= 0.1 * b.grad
    captured = passes._captured.kept[(4, 3, 2, 2)]
    assert captured.forward.replays == captured.backward.replays == 3
    assert counter.seen() == (12 * calls, 12 * calls)


def test_logits_of_a_step_are_not_those_of_the_next(monkeypatch):
    pretended(monkeypatch)
    passes = GraphedPasses(network(), PassCounter(nn.Identity()))
    first = passes.step()(torch.ones(2, 3, 2, 2))
    kept = first.detach().clone()
    passes.step()(torch.zeros(2, 3, 2, 2))
    assert torch.equal(first, kept)


def test_a_third_size_a_batch_with_a_gradient_and_a_pass_without_gradients_are_not_captured(monkeypatch):
    pretended(monkeypatch)
    model = network()
    passes = GraphedPasses(model, PassCounter(nn.Identity()))
    for rows in (4, 3):
        passes.step()(torch.ones(rows, 3, 2, 2))
    for x in (torch.ones(2, 3, 2, 2), torch.ones(4, 3, 2, 2, requires_grad=True)):
        assert torch.equal(passes.step()(x), model(x))
    with torch.no_grad():
        assert torch.equal(passes.step()(torch.ones(4, 3, 2, 2)), model(torch.ones(4, 3, 2, 2)))
    assert sorted(shape[0] for shape in passes._captured.kept) == [3, 4]
    assert [passes._captured.kept[(rows, 3, 2, 2)].forward.replays for rows in (3, 4)] == [1, 1]


def test_estimates_replay_in_evaluation_mode_alone(monkeypatch):
    model = network()
    counter = PassCounter(model)
    graphed = GraphedForward(model, counter)
    made = []

    def capture(self, x):
        inputs, logits = x.clone(), torch.zeros(len(x), 3)
        bare = copy.deepcopy(self.network)
        bare._forward_hooks.clear()
        made.append(Replayed(lambda: logits.copy_(bare(inputs))))
        return made[-1], inputs, logits

    monkeypatch.setattr(GraphedForward, "_capture", capture)
    x = torch.randn(4, 3, 2, 2)
    graphed(x)  # it trains, and with gradients
    with torch.no_grad():
        graphed(x)  # it trains
    model.eval()
    graphed(x)  # with gradients
    assert not made and counter.seen() == (12, 0)
    with torch.inference_mode():
        first, second = graphed(x), graphed(2 * x)
        for rows in (3, 2):
            graphed(torch.randn(rows, 3, 2, 2))  # another size, and one too many
        expected = model(x), model(2 * x)
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])
    assert [graph.replays for graph in made] == [2, 1]
    assert counter.seen() == (12 + 4 + 4 + 3 + 2 + 8, 0)


class Recorded:
    """torch.cuda's part in a capture: says in which order what was done, and computes at once."""

    def __init__(self, monkeypatch):
        self.done = []
        for name in ("Stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda: self)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: self.doing("warm up"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    def wait_stream(self, other):
        pass

    def pool(self):
        return "memory of the first"

    def replay(self):
        self.done.append("replay")

    @contextlib.contextmanager
    def doing(self, what):
        self.done.append(what)
        yield

    def graph(self, graph, pool=None, capture_error_mode=None):
        assert capture_error_mode == "thread_local" and not torch.is_autocast_cache_enabled()
        return self.doing(f"record, {pool}" if pool else "record")


def counted(model):
    calls = []
    model.register_forward_hook(lambda *given: calls.append(torch.is_autocast_cache_enabled()))
    return calls


def test_a_capture_passes_before_it_records_and_leaves_no_trace(monkeypatch):
    cuda = Recorded(monkeypatch)
    model = nn.Sequential(nn.BatchNorm2d(3), *network()).train()
    calls, counter = counted(model), PassCounter(model)
    before = copy.deepcopy(model.state_dict())
    captured = GraphedPasses(model, counter)._capture(torch.randn(4, 3, 2, 2))
    assert cuda.done == ["warm up", "record", "record, memory of the first"]
    assert calls == [False] * (WARM_UP + 1) and torch.is_autocast_cache_enabled()
    assert counter.seen() == (0, 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [g.shape for g in captured.gradients] == [p.shape for p in model.parameters()]
    assert [g.stride() for g in captured.gradients] == [p.stride() for p in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_estimates_and_attacks_are_captured_likewise(monkeypatch):
    cuda = Recorded(monkeypatch)
    model = network().eval()
    calls, counter = counted(model), PassCounter(model)
    with torch.inference_mode():
        GraphedForward(model, counter)(torch.randn(4, 3, 2, 2))
    assert cuda.done == ["warm up", "record", "replay"] and counter.seen() == (4, 0)
    cuda.done.clear()
    settings = AttackSettings(enabled=True, steps=2, epsilon=0.25)
    noise = torch.randn(4, 3, 2, 2)
    attacked = GraphedAttack(model, settings, 1.0, counter)(torch.rand(4, 3, 2, 2), torch.arange(4) % 3, noise)
    assert cuda.done == ["warm up", "record", "replay"] and counter.seen() == (12, 8)
    assert len(calls) == (WARM_UP + 1) * 3 and not any(calls)
    torch.testing.assert_close(attacked.noise.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1))


@pytest.mark.parametrize("broken", ["warm up", "record", "record, memory of the first"])
def test_passes_that_cannot_be_captured_are_launched_one_by_one_and_said(broken, monkeypatch, capsys):
    cuda = Recorded(monkeypatch)

    @contextlib.contextmanager
    def doing(what):
        cuda.done.append(what)
        if what == broken:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        yield

    cuda.doing = doing
    plain, model = network(), network()
    plain, model = nn.Sequential(nn.BatchNorm2d(3), *plain), nn.Sequential(nn.BatchNorm2d(3), *model)
    passes = GraphedPasses(model, PassCounter(model))
    for number in range(2):
        x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(number))
        for one in (plain, passes.step()):
            one(x).square().sum().backward()
    for (name, a), b in zip(plain.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert cuda.done.count("warm up") == 1 and torch.is_autocast_cache_enabled()
    why = "launched kernel by kernel, not as a CUDA graph: operation not permitted when stream is capturing"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"passes=steps: {why}")


def test_a_full_memory_is_not_taken_for_a_network_that_cannot_be_captured(monkeypatch):
    cuda = Recorded(monkeypatch)
    monkeypatch.setattr(torch.cuda, "graph", lambda *given, **more: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    model = network()
    with pytest.raises(torch.OutOfMemoryError):
        GraphedPasses(model, PassCounter(model)).step()(torch.randn(4, 3, 2, 2))
    assert cuda.done == ["warm up"]
