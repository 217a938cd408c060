import sys

import pytest

from tests.fakes.datasets import OWN, OWN_MODULE, write_all, write_own


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    """Roots of every kind of data; the user's own is found where Python looks."""
    folder = write_own(tmp_path_factory.mktemp("own"))
    sys.path.append(str(folder))
    yield {**write_all(tmp_path_factory.mktemp("data")), OWN: None}
    sys.path.remove(str(folder))
    sys.modules.pop(OWN_MODULE, None)


@pytest.fixture(scope="session")
def cifar10_root(roots):
    return roots["cifar10"]


@pytest.fixture(scope="session")
def imagenet_root(roots):
    return roots["imagenet"]
