"""Ray's TLS between all processes (docs/security.md): jobs run, and who has no certificate stays outside."""

from types import SimpleNamespace

import pytest

from acr_ray.cli.private_head import PrivateHead
from tests.fakes.certificates import tls_environment
from tests.fakes.jobs import run

pytestmark = [pytest.mark.ray, pytest.mark.endurance, pytest.mark.timeout(900)]

TRAIN = ("digits", "--training.epochs", 4, "--training.e_t", 1, "--training.milestones", "", "--workers", 2)


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tls_environment(tmp_path_factory.mktemp("tls")).items():
            patch.setenv(name, value)
        with PrivateHead(cpus=4) as head:
            yield head


def test_jobs_run(secured, tmp_path):
    run("train", *TRAIN, "--out", tmp_path / "train", "--no-tracking", head=secured)
    run(
        "certify",
        tmp_path / "train",
        "--out",
        tmp_path / "certify",
        "--n",
        1000,
        "--max-images",
        20,
        "--actors",
        2,
        "--no-tracking",
        head=secured,
    )
    assert (tmp_path / "certify" / "summary.json").is_file()


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's"])
def test_a_client_without_the_clusters_certificate_is_refused_in_one_line(secured, tmp_path, whose):
    outside = SimpleNamespace(environment={k: v for k, v in secured.environment.items() if "TLS" not in k})
    if whose == "a stranger's":
        outside.environment |= tls_environment(tmp_path)
    _, errors = run("train", *TRAIN, "--out", tmp_path / "train", "--no-tracking", head=outside, code=2)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "RAY_USE_TLS=1" in lines[0]
    assert "Traceback" not in errors
