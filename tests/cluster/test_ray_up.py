"""The `ray up` files, by Ray's own reading of them, and what we promise of them."""

import copy

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import CLUSTER, RAY_UP, ROOT, changed, ray_version

pytestmark = pytest.mark.static
AWS, LOCAL = CLUSTER / "ray-up" / "aws.yaml", CLUSTER / "ray-up" / "local.yaml"


def check_by_ray(text: str) -> None:
    config = yaml.safe_load(text)
    validate_config(prepare_config(copy.deepcopy(config)))


def check_starts(starts: list[str]) -> list[str]:
    """What is wrong with the commands that start Ray, the head's first."""
    wrong = []
    if len(starts) != 2:
        wrong.append("one `ray start` for the head, one for workers")
    for command in starts:
        if "RAY_AUTH_MODE=token" not in command:
            wrong.append("a node starts without token authentication")
        if not command.startswith(". ~/acr-ray/cluster/ray-up/node.sh &&"):
            wrong.append("a node starts without node.sh: token path, health checks, ulimit")
    if "--dashboard-host=127.0.0.1" not in starts[0]:
        wrong.append("the dashboard takes jobs: loopback only")
    if "--num-cpus=0" not in starts[0] or "RAY_JOB_STOP_WAIT_TIME_S=30" not in starts[0]:
        wrong.append("a head without work, and 30 s for jobs to save")
    if "--autoscaling-config=~/ray_bootstrap_config.yaml" not in starts[0]:
        wrong.append("without --autoscaling-config no worker is ever started")
    return wrong


def check_ours(text: str) -> list[str]:
    """What is wrong with a file by our own rules."""
    config = yaml.safe_load(text)
    head, worker = (config[f"{kind}_start_ray_commands"] for kind in ("head", "worker"))
    wrong = check_starts([command for command in [*head, *worker] if "ray start" in command])
    if not any(f'ray --version | grep -F "{ray_version()}"' in command for command in config["setup_commands"]):
        wrong.append(f"Ray is not {ray_version()}, the version of constraints.txt")
    mounts = config["file_mounts"]
    if mounts.get("~/.ray/auth_token") != "~/.ray/auth_token":
        wrong.append("the token does not reach the nodes")
    for local in mounts.values():
        if not local.startswith("~") and not (ROOT / local).exists():
            wrong.append(f"{local} is not in the repository")
    for name, kind in config.get("available_node_types", {}).items():
        if name == config["head_node_type"] and kind["resources"] != {"CPU": 0}:
            wrong.append("the head's node type offers resources")
        if name != config["head_node_type"] and kind.get("min_workers") != 0:
            wrong.append(f"{name}: workers are paid for while nothing runs")
    return wrong


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_ray_accepts_the_files(path):
    assert len(RAY_UP) == 3
    check_by_ray(path.read_text())
    assert check_ours(path.read_text()) == []


@pytest.mark.parametrize(
    "line, to",
    [
        ("idle_timeout_minutes: 10", "idle_timeout_minute: 10"),
        ("max_workers: 8\nupscaling", "max_workers: many\nupscaling"),
        ("head_node_type: head", "head_node_type: heads"),
        ('resources: {"CPU": 8, "GPU": 1}', 'resources: {"CPU": 8, "GPU": 0.5}'),
        ("setup_commands:", "setup_command:"),
    ],
)
def test_ray_refuses_a_wrong_file(line, to):
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        check_by_ray(changed(AWS, line, to))


@pytest.mark.parametrize(
    "path, line, to",
    [
        (AWS, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        (AWS, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        (AWS, ". ~/acr-ray/cluster/ray-up/node.sh && export", "export"),
        (AWS, f'-F "{ray_version()}"', '-F "2.9.3"'),
        (AWS, "~/.ray/auth_token: ~/.ray/auth_token", "~/.ray/token: ~/.ray/auth_token"),
        (AWS, "acr_ray: acr_ray", "acr_ray: src/acr_ray"),
        (AWS, 'resources: {"CPU": 0}', 'resources: {"CPU": 4}'),
        (AWS, "min_workers: 0", "min_workers: 1"),
        (LOCAL, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""),
        (LOCAL, "--num-cpus=0", ""),
    ],
)
def test_our_rules_catch_a_wrong_line(path, line, to):
    assert check_ours(changed(path, line, to)) != []
