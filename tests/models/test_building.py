import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from acr_ray.data import batches, open_images
from acr_ray.data.sampling import draw_epoch, steps
from acr_ray.models import Normalize, architectures, build_model, state_bytes
from acr_ray.settings import RECIPES, UserError

CIFAR, DIGITS, IMAGENET = (3, 32, 32), (1, 8, 8), (3, 224, 224)


def build(architecture, shape, classes=10, seed=0):
    return build_model(architecture, classes, shape, (0.4,) * shape[0], (0.2,) * shape[0], seed)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("architecture", "shape", "classes", "parameters"),
    [
        ("digits_resnet", DIGITS, 10, 7_418),
        ("cifar_resnet20", CIFAR, 10, 272_474),
        ("cifar_resnet32", CIFAR, 10, None),
        ("cifar_resnet56", CIFAR, 10, None),
        ("cifar_resnet110", CIFAR, 10, 1_730_714),
        ("resnet50", IMAGENET, 1000, 25_557_032),
        ("resnet18", CIFAR, 7, None),
        ("googlenet", IMAGENET, 3, None),
    ],
)
def test_forward_and_size(architecture, shape, classes, parameters):
    model = build(architecture, shape, classes)
    assert model.training and all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    if parameters:
        assert sum(p.numel() for p in model.parameters()) == parameters
    for mode in (True, False):
        with torch.no_grad():
            logits = model.train(mode)(torch.rand(2, *shape))
        assert logits.shape == (2, classes) and logits.isfinite().all()


def test_a_layer_at_a_time_reference_of_resnet20():
    """Slow reference: the same weights, the network written out from its state by name."""
    model = build("cifar_resnet20", CIFAR).eval()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    state = model.state_dict()
    x = torch.rand(2, *CIFAR)

    def conv_bn(h, conv, bn, stride=1):
        weight = state[f"network.{conv}.weight"]
        h = F.conv2d(h, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, bias = (
            state[f"network.{bn}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (h - mean) / (var + 1e-5).sqrt() * scale + bias

    h = conv_bn((x - 0.4) / 0.2, "conv1", "bn1").relu()
    for stage in (1, 2, 3):
        for number in range(3):
            block, stride = f"stage{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            inner = conv_bn(
                conv_bn(h, f"{block}.conv1", f"{block}.bn1", stride).relu(), f"{block}.conv2", f"{block}.bn2"
            )
            shortcut = conv_bn(h, f"{block}.shortcut.0", f"{block}.shortcut.1", 2) if stride == 2 else h
            h = (inner + shortcut).relu()
    expected = h.mean(dim=(2, 3)) @ state["network.fc.weight"].T + state["network.fc.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("architecture", "shape"), [("digits_resnet", DIGITS), ("cifar_resnet20", CIFAR)])
def test_initial_weights_are_a_function_of_the_seed(architecture, shape):
    before = torch.get_rng_state()
    first, same, other = (state_bytes(build(architecture, shape, seed=seed)) for seed in (5, 5, 6))
    assert first == same != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_building_leaves_the_gpus_random_state_alone():
    torch.cuda.manual_seed(1)
    torch.rand(5, device="cuda")
    before = torch.cuda.get_rng_state()
    build("digits_resnet", DIGITS, seed=5)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_initialisation_is_hes():
    model = build("cifar_resnet110", CIFAR)
    for name, weight in model.named_parameters():
        if weight.dim() == 4 and weight.numel() > 9000:
            fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
            assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name


def test_normalisation_is_the_first_layer():
    model = build_model("cifar_resnet20", 10, CIFAR, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), 0)
    assert isinstance(model[0], Normalize) and [name for name, _ in model.named_children()] == ["normalize", "network"]
    assert model[0](torch.ones(1, 3, 1, 1)).flatten().tolist() == pytest.approx([1.8, 3.2, 0.35])


@pytest.mark.parametrize(
    ("architecture", "shape", "digest"),
    [
        ("digits_resnet", DIGITS, "16332b0f7613b884"),
        ("cifar_resnet20", CIFAR, "41ee07e8792cc0ce"),
        ("cifar_resnet110", CIFAR, "9f99ba9b0de65380"),
    ],
)
def test_state_names_are_frozen(architecture, shape, digest):
    """Old checkpoints stay readable."""
    names = "\n".join(build(architecture, shape).state_dict())
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet51", 10, CIFAR, 3), "model.architecture = resnet51: unknown; allowed: digits_resnet, cifar_resnet20,"),
        (("digits_resnet", 10, CIFAR, 3), "digits_resnet: does not fit images of shape \\(3, 32, 32\\)"),
        (("resnet50", 10, DIGITS, 1), "resnet50: does not fit images of shape \\(1, 8, 8\\)"),
        (("vit_b_16", 10, CIFAR, 3), "vit_b_16: does not fit"),
        (("alexnet", 10, CIFAR, 3), "alexnet: does not fit"),
        (("cifar_resnet20", 1, CIFAR, 3), "num_classes = 1; allowed: 2 to"),
        (("cifar_resnet20", 10**12, CIFAR, 3), "num_classes = 1000000000000; allowed: 2 to"),
        (("cifar_resnet20", 10, (3, 10**6, 10**6), 3), "image shape"),
        (("cifar_resnet20", 10, CIFAR, 1), "mean of 1 channels for images of 3"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    architecture, classes, shape, channels = arguments
    with pytest.raises(UserError, match=message):
        build_model(architecture, classes, shape, (0.5,) * channels, (0.5,) * channels, 0)


def test_std_must_be_positive():
    with pytest.raises(UserError, match="std > 0"):
        build_model("digits_resnet", 10, DIGITS, (0.5,), (0.0,), 0)


def test_every_recipes_architecture_is_there():
    assert {recipe().model.architecture for recipe in RECIPES.values()} <= set(architectures())


def test_digits_resnet_learns_noisy_digits():
    images = open_images("digits", None, "train")
    model = build_model("digits_resnet", 10, images.shape, images.mean, images.std, 0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(8):
        sequence = draw_epoch(0, epoch, len(images))
        for x, labels in batches(images, ((sequence[step], None) for step in steps(len(images), 64))):
            x, labels = x.repeat_interleave(4, 0), labels.repeat_interleave(4)
            loss = nn.functional.cross_entropy(model(x + 0.5 * torch.randn(x.shape, generator=generator)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    test = open_images("digits", None, "test")
    x = test.load(range(len(test)), None)
    with torch.no_grad():
        right = model.eval()(x + 0.5 * torch.randn(x.shape, generator=generator)).argmax(1).numpy() == test.labels
    assert right.mean() > 0.65
