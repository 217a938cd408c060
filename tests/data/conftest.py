import pytest

from tests.fakes.images import write_cifar10, write_imagenet


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory):
    return str(write_cifar10(tmp_path_factory.mktemp("cifar10")))


@pytest.fixture(scope="session")
def imagenet_root(tmp_path_factory):
    return str(write_imagenet(tmp_path_factory.mktemp("imagenet")))


@pytest.fixture(scope="session")
def roots(cifar10_root, imagenet_root):
    return {"digits": None, "cifar10": cifar10_root, "imagenet": imagenet_root}
