"""Both images, built for real by buildah on a Debian base, and looked at from inside and outside."""

from __future__ import annotations

import os
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.docker import building
from tests.docker.building import MLFLOW, NODE, Container

REASON = building.missing("buildah", "debootstrap")
pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(REASON), reason=REASON or "images can be built"),
]

PINNED = dict(line.split("==") for line in (building.ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
TOKEN = "not-a-secret-only-this-test-knows-it"


@pytest.fixture(scope="module", autouse=True)
def images():
    """Built once; kept only where ACR_RAY_KEEP_IMAGES is set."""
    try:
        building.make_images()
        yield
    finally:
        if not os.environ.get(building.KEEP):
            building.remove_images(NODE, MLFLOW, building.BASE)


@pytest.fixture(scope="module")
def node(images):
    with Container(NODE) as inside:
        yield inside


@pytest.fixture(scope="module")
def mlflow(images):
    with Container(MLFLOW) as inside:
        yield inside


@pytest.mark.parametrize("image", [NODE, MLFLOW])
def test_settings(image):
    found = building.settings(image)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found["User"]), "a number, so that Kubernetes can see that it is not root"
    assert found["Healthcheck"]["Test"][0] == "CMD"
    assert found["StopSignal"] == "SIGTERM"
    assert found["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not [entry for entry in found["Env"] if re.match(r"\w*(PASSWORD|TOKEN|SECRET|KEY)=", entry)]


@pytest.mark.parametrize("image", [NODE, MLFLOW])
def test_user_and_what_is_not_in_the_image(image, request):
    inside = request.getfixturevalue("node" if image == NODE else "mlflow")
    assert inside.run("id", "-u").strip() == "1000"
    for program in ("gcc", "g++", "cc", "make", "git"):
        inside.run("sh", "-c", f"command -v {program}", code=127)
    assert not list((inside.root / "opt/venv/bin").glob("pip*")), "pip in the environment"
    for name in ("etc/pip.conf", "root/.cache/pip", "root/.config/pip", "run/secrets", "build", "home/ray/.cache"):
        path = inside.root / name
        assert not path.exists() or not any(path.iterdir()), name
    for folder in ("opt/acr-ray", "home", "results", "data"):
        for path in (inside.root / folder).rglob("*"):
            assert path.suffix not in (".pem", ".key", ".env") and "token" not in path.name, path


@pytest.mark.parametrize("image", [NODE, MLFLOW])
def test_versions_are_those_of_the_constraints(image, request):
    inside = request.getfixturevalue("node" if image == NODE else "mlflow")
    code = "from importlib.metadata import distributions as d; [print(x.name, x.version) for x in d()]"
    found = dict(line.split() for line in inside.run("python", "-c", code).splitlines() if " " in line)
    plain = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PINNED.items()}
    wanted = {name: plain.get(re.sub(r"[-_.]+", "-", name).lower()) for name in found}
    assert {
        name: (found[name], version) for name, version in wanted.items() if version not in (None, found[name])
    } == {}
    free = {name for name, version in wanted.items() if version is None}
    # What torch brings for CUDA follows from torch; setuptools is what it asks for besides.
    assert {name for name in free if not name.startswith(("nvidia-", "cuda-"))} <= {"acr-ray", "setuptools"}, free
    assert len(found) > 50


def test_jobs_run_anywhere(node):
    for folder in ("/", "/tmp", "/results"):
        text = node.run("sh", "-c", f"cd {folder} && python -m jobs.certify --help")
        assert "--alpha" in text
        assert node.run("sh", "-c", f"cd {folder} && acr-ray certify --help") == text.replace(
            "python -m jobs.", "acr-ray "
        )
    code = "import acr_ray.cli.private_head, jobs.train, ray, torch; print(acr_ray.__version__, acr_ray.__file__)"
    assert "/opt/acr-ray/lib/acr_ray/" in node.run("python", "-c", code)


def test_a_job_trains_and_resumes_as_the_image_user(node):
    """Tiny, on a Ray of its own; the report's page and the recipes are package data that a wheel could lack."""
    words = ["python", "-m", "jobs.train", "digits-gaussian", "--out", "/results/tiny", "--no-tracking"]
    words += ["--training.epochs", "1", "--workers", "1"]
    without = {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    node.run(*words, **without)
    assert (node.root / "results/tiny/checkpoint/model.safetensors").stat().st_uid == 1000
    assert (node.root / "results/tiny/summary.json").exists()


def test_a_node_without_a_token_does_not_start(node):
    text = node.run(
        "ray",
        "start",
        "--head",
        "--port=24990",
        "--include-dashboard=false",
        "--temp-dir=/tmp/none",
        code=1,
        RAY_ADDRESS="127.0.0.1:24990",
    )
    assert "token" in text.lower()


@contextmanager
def ray_node(inside: Container, token: str):
    """A head in the container, on ports of its own. Ended by process id: other Rays stay."""
    folder = inside.root / "tmp"
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o644)
    command = inside.command(
        "ray",
        "start",
        "--head",
        "--block",
        "--num-cpus=0",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
        "--port=24000",
        "--dashboard-host=127.0.0.1",
        "--dashboard-port=24001",
        "--ray-client-server-port=24002",
        "--dashboard-agent-listen-port=24003",
        "--metrics-export-port=24004",
        "--min-worker-port=24100",
        "--max-worker-port=24599",
        "--temp-dir=/tmp/r",
        RAY_AUTH_TOKEN_PATH="/tmp/token",
        RAY_ADDRESS="127.0.0.1:24000",
    )
    log = Path(f"{inside.root}/tmp/head.log")
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=building.ENVIRONMENT)
    try:
        limit = time.monotonic() + 120
        while b"Ray runtime started" not in log.read_bytes():
            assert process.poll() is None and time.monotonic() < limit, log.read_text()[-2000:]
            time.sleep(0.5)
        yield process
    finally:
        end(process.pid)
        process.wait(30)


def end(pid: int) -> None:
    """Kill a process and all below it, from the leaves' list that is taken first."""
    try:
        tree = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return
    for process in [*tree, psutil.Process(pid)]:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(tree, 10)


def test_the_health_check_asks_the_node(node):
    """Unhealthy without Ray; healthy with it; unhealthy when the raylet is gone and everything else still there."""
    check = building.settings(NODE)["Healthcheck"]["Test"][1:]
    here = {"ACR_RAY_AGENT_PORT": "24003"}
    assert "no Ray node answers" in node.run(*check, code=1, **here)
    with ray_node(node, TOKEN) as process:
        limit = time.monotonic() + 60
        while True:
            try:
                text = node.run(*check, **here)
                break
            except AssertionError:
                assert time.monotonic() < limit
                time.sleep(1)
        assert "raylet: success" in text and "gcs: success" in text
        raylets = [p for p in psutil.Process(process.pid).children(recursive=True) if p.name() == "raylet"]
        assert len(raylets) == 1
        raylets[0].suspend()  # hangs, as a node does that has lost its memory or disk
        limit = time.monotonic() + 90
        while True:
            try:
                node.run(*check, **here)
            except AssertionError as error:
                assert "unhealthy" in str(error)
                break
            assert time.monotonic() < limit, "a raylet that hangs was called healthy"
            time.sleep(3)


def test_mlflow_serves_and_its_health_check_calls_the_api(mlflow):
    check = building.settings(MLFLOW)["Healthcheck"]["Test"][1:]
    port = {"MLFLOW_PORT": "24005"}
    assert "no MLflow server answers" in mlflow.run(*check, code=1, **port)
    settings = port | {
        "MLFLOW_BACKEND_STORE_URI": "sqlite:////tmp/m.db",
        "MLFLOW_ARTIFACTS_DESTINATION": "/tmp/artifacts",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow:*,localhost:*",
        "MLFLOW_WORKERS": "1",
    }
    lacking = mlflow.run("/opt/acr-ray/mlflow-server.sh", code=2)
    assert "MLFLOW_BACKEND_STORE_URI" in lacking and lacking.count("\n") == 1
    words = mlflow.command("/opt/acr-ray/mlflow-server.sh", **settings)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=building.ENVIRONMENT)
    try:
        limit = time.monotonic() + 120
        while True:
            try:
                mlflow.run(*check, **port)
                break
            except AssertionError as error:
                assert process.poll() is None and time.monotonic() < limit, error
                time.sleep(2)
        refused = mlflow.run(*check, code=1, MLFLOW_HEALTH_HOST="evil.example:5000", **port)
        assert "unhealthy: 403" in refused
    finally:
        end(process.pid)
        process.wait(30)
