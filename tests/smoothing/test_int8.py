"""The int8 network: close to a slow reference, blind to its batch, one file, or refused in one line."""

import pytest
import torch
from torch import fx, nn

from acr_ray.models import build_model
from acr_ray.settings import UserError
from acr_ray.smoothing import int8_network
from acr_ray.smoothing.arithmetic import int8_graph, prepare
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.int8_calibration import best_steps, calibrate
from acr_ray.smoothing.int8_layout import Pool, layout_of
from acr_ray.smoothing.int8_network import MaxPool, int8_problem
from acr_ray.smoothing.int8_parameters import Int8Parameters
from acr_ray.smoothing.plan import Phase
from tests.smoothing.test_arithmetic import lived_in

needs_vnni = pytest.mark.skipif(int8_problem() is not None, reason=str(int8_problem()))


class Own(nn.Module):
    """Adds a convolution to its own input, and uses a sum again after it was added to."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
        self.pool, self.fc = nn.MaxPool2d(3, 2, 1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.pool(torch.relu(self.a(x)))
        y = x + self.b(x)
        z = torch.relu(self.c(y) + y)
        return self.fc((z + self.a.bias.mean()).mean((2, 3))) + self.fc(y.mean((2, 3)))


def network(name):
    if name == "own":
        torch.manual_seed(0)
        return Own().eval(), (3, 16, 16)
    shape = {"digits_resnet": (1, 8, 8), "cifar_resnet20": (3, 32, 32)}.get(name, (3, 64, 64))
    return lived_in(build_model(name, 10, shape, (0.4,) * shape[0], (0.3,) * shape[0], 0)), shape


def noisy(shape, rows, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, *shape, generator=generator) + 0.25 * torch.randn(rows, *shape, generator=generator)


class Reference(fx.Interpreter):
    """The same in float64: weights and activations are rounded, nothing else is."""

    def __init__(self, graph, parameters):
        steps = layout_of(graph).steps  # takes modules that do nothing out of it
        super().__init__(graph.double())
        self.parameters = parameters
        modules = dict(graph.named_modules())
        for step in steps:
            module, weights = modules[step.convolution.target], parameters.weights[step.convolution.name]
            module.weight = nn.Parameter(weights.weight.double() * weights.scale.double()[:, None, None, None])
            module.bias = nn.Parameter(weights.bias.double())

    def run_node(self, n):
        value = super().run_node(n)
        if n.name in self.parameters.activations:
            scale, zero = self.parameters.activations[n.name]
            return ((value / scale).round().add(zero).clamp(0, 255) - zero) * scale
        return value


@needs_vnni
@pytest.mark.parametrize("name", ["digits_resnet", "cifar_resnet20", "resnet18", "own"])
def test_it_is_the_network_with_rounded_weights_and_activations(name):
    model, shape = network(name)
    parameters = calibrate(model, [noisy(shape, 16)])
    x = noisy(shape, 40, seed=3)
    with torch.inference_mode():
        found = prepare(model, dtype="int8", int8=parameters)(x)
        expected = Reference(int8_graph(model), parameters).run(x.double())
        plain = model(x)
    assert found.dtype == torch.float32
    # A sum that lies between two steps may go to either, and what follows goes with it.
    apart = (found - expected).abs().amax(1)
    assert (apart < 1e-5 * expected.std()).float().mean() > 0.5 and apart.max() < 0.1 * expected.std()
    assert (found - plain).abs().max() > 0, "it is another network than the float32 one"
    assert (found.argmax(1) == plain.argmax(1)).float().mean() > 0.9


@needs_vnni
@pytest.mark.parametrize("name", ["digits_resnet", "cifar_resnet20", "resnet18", "own"])
def test_answers_depend_neither_on_the_batchs_size_nor_on_its_order(name):
    model, shape = network(name)
    ready = prepare(model, dtype="int8", int8=calibrate(model, [noisy(shape, 16)]))
    x = noisy(shape, 35, seed=4)
    with torch.inference_mode():
        whole = ready(x)
        for size in (1, 2, 7, 16):
            parts = torch.cat([ready(x[at : at + size]) for at in range(0, 35, size)])
            assert torch.equal(parts, whole), f"batches of {size} are answered otherwise"
        order = torch.randperm(35, generator=torch.Generator().manual_seed(5))
        assert torch.equal(ready(x[order]), whole[order])
        again = prepare(model, dtype="int8", int8=calibrate(model, [noisy(shape, 16)]))
        assert torch.equal(again(x), whole), "made again from the same images"


@needs_vnni
def test_the_given_model_is_left_as_it_was():
    model, shape = network("digits_resnet")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    prepare(model, dtype="int8", int8=calibrate(model, [noisy(shape, 4)]))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert next(model.parameters()).requires_grad


def test_one_file_holds_all_and_its_hash_names_it():
    model, shape = network("digits_resnet")
    parameters = calibrate(model, [noisy(shape, 16)], {"images": 16})
    content = parameters.to_bytes()
    read = Int8Parameters.from_bytes(content, "a file")
    assert read.to_bytes() == content and read.sha256 == parameters.sha256 and read.about == {"images": 16}
    assert calibrate(model, [noisy(shape, 16, seed=9)], {"images": 16}).sha256 != parameters.sha256
    header = int.from_bytes(content[:8], "little")
    broken = [
        b"",
        content[:200],
        content[:-1],
        content.replace(b'\\"zero\\": ', b'\\"zero\\":-'),
        content.replace(b'\\"schema_version\\": 1', b'\\"schema_version\\": 9'),
        content.replace(b".bias", b".bios"),
        content[: 8 + header] + b"\xff" * (len(content) - 8 - header),
        b"\x80\x04not a safetensors file",
    ]
    for damaged in broken:
        assert damaged != content
        with pytest.raises(UserError, match="^a file"):
            Int8Parameters.from_bytes(damaged, "a file")


@needs_vnni
def test_the_parameters_of_another_network_are_refused():
    (model, _), (other, others) = network("digits_resnet"), network("cifar_resnet20")
    with pytest.raises(UserError, match="another network's"):
        prepare(model, dtype="int8", int8=calibrate(other, [noisy(others, 4)]))
    with pytest.raises(UserError, match="needs int8 parameters"):
        prepare(model, dtype="int8")


class Activated(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.act, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), activation, nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.b(self.act(self.a(x))).mean((2, 3)))


class Branching(Activated):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Changed(Activated):
    """Changes a tensor in place that it uses again."""

    def forward(self, x):
        x = torch.relu(self.a(x))
        y = x
        x += torch.relu(self.a(x * 0 + 1).mean())
        return self.fc(self.b(x + y).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Activated(nn.SiLU()), r"act \(SiLU\(\)\) stands in the way"),
        (Activated(nn.MaxPool2d(2, ceil_mode=True)), "ceil_mode=True"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.LayerNorm(4 * 36)), "LayerNorm"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "no convolution"),
        (Branching(nn.ReLU()), "cannot trace"),
        (Changed(nn.ReLU()), "stands in the way"),
    ],
)
def test_what_int8_cannot_compute_is_refused_in_one_line(model, said):
    with pytest.raises(UserError, match=said) as refused:
        calibrate(model.eval(), [torch.rand(2, 1, 8, 8)])
    assert str(refused.value).startswith("--dtype int8: ") and "\n" not in str(refused.value)


def test_a_processor_without_vnni_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(int8_network, "processor_flags", lambda: {"avx2", "avx512f"})
    assert "no VNNI" in int8_network.int8_problem()
    model, shape = network("digits_resnet")
    with pytest.raises(UserError, match="no VNNI"):
        prepare(model, dtype="int8", int8=calibrate(model, [noisy(shape, 4)]))


@pytest.mark.parametrize(
    "kernel, stride, padding", [((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (0, 1)), ((2, 2), (2, 2), (0, 0))]
)
def test_max_pooling_of_whole_numbers(kernel, stride, padding):
    x = torch.randint(0, 256, (2, 5, 13, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.max_pool2d(x.double(), kernel, stride, padding)
    assert torch.equal(MaxPool(Pool(None, kernel, stride, padding))(x).double(), expected)


def test_the_range_of_an_activation_leaves_out_what_is_rare():
    counts = torch.zeros(2048, dtype=torch.int64).numpy()
    counts[:1024], counts[-1] = 1000, 1
    steps = best_steps(counts, 0.0, 2.0)
    assert steps.zero == 0 and 0.99 <= 255 * steps.scale < 1.3, "one value at 2 does not make all others coarse"
    counts[:] = 10
    both = best_steps(counts, -1.0, 3.0)
    assert both.zero == 64 and abs(255 * both.scale - 4) < 0.1, "0 is one of the numbers"
    assert best_steps(counts, 0.0, 0.0) == (1.0, 0)


@needs_vnni
def test_the_smoothed_classifier_calibrates_on_images_that_it_is_given():
    model, shape = network("digits_resnet")
    image, phase = torch.rand(shape, generator=torch.Generator().manual_seed(0)), Phase("x", 400, 100)
    images = torch.rand(20, *shape, generator=torch.Generator().manual_seed(1))
    exact = SmoothedClassifier(model, 10, 0.5).counts(image, phase, "a")
    whole = SmoothedClassifier(model, 10, 0.5, dtype="int8", calibration=images).counts(image, phase, "a")
    assert whole.sum() == 400 and abs(exact - whole).sum() <= 40, "the same noise: nearly all answers agree"
    other = SmoothedClassifier(model, 10, 0.5, dtype="int8", calibration=images, block=7).counts(image, phase, "a")
    assert (other == whole).all()
    with pytest.raises(ValueError, match="calibration: missing"):
        SmoothedClassifier(model, 10, 0.5, dtype="int8")
    with pytest.raises(ValueError, match="belongs to dtype int8"):
        SmoothedClassifier(model, 10, 0.5, calibration=images)
