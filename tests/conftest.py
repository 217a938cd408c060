"""What tests share: one private Ray head for all that need a cluster, and where the reference data are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from acr_ray.cli.private_head import PrivateHead

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a Ray, so that ``make test`` can leave it to ``make test-ray``; the longest test comes first."""
    for item in items:
        if "head" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
    # Of the two processes of make test, one would otherwise begin it when the other has nothing left to do.
    items.sort(key=lambda item: item.get_closest_marker("smoke") is None)


@pytest.fixture(scope="session")
def head():
    """A Ray of our own with four logical CPUs; other Rays on the machine are not touched."""
    with PrivateHead(cpus=4) as running:
        yield running


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """The file of an empty MLflow database, to be copied: making its tables takes more than a second."""
    import mlflow

    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(empty_store, tmp_path) -> str:
    """The address of an MLflow database of the test's own, with nothing in it."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="session")
def reference() -> Path:
    """The field's released certificates, where they lie beside the checkout."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("the released certificate files (shared/reference beside the checkout) are not here")
    return folder
