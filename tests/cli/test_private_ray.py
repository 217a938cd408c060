"""The Ray that a job starts for itself, and the demo's: on loopback alone, with a token, and without a warning."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from acr_ray.cli.private_head import PrivateHead
from acr_ray.cli.ray_session import ONE_NODE, loopback_only
from tests.fakes.jobs import ROOT, environment

LISTENERS = """
import json, os, psutil
def listeners():
    found = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            for c in process.net_connections(kind="tcp"):
                if c.status == "LISTEN":
                    found.add((process.name(), c.laddr.ip.removeprefix("::ffff:")))
        except psutil.Error:
            pass
    return sorted(found)
"""


@pytest.mark.ray
@pytest.mark.parametrize("first", ["", "import ray\n"])
def test_a_jobs_own_ray_listens_on_loopback_and_says_nothing(first, tmp_path):
    code = (
        f"{first}{LISTENERS}\nfrom acr_ray.cli.ray_session import connect\nconnect()\nimport ray\n"
        "f = ray.remote(lambda: 7)\nassert ray.get(f.remote()) == 7\n"
        f"print(json.dumps([listeners(), len(os.environ['RAY_AUTH_TOKEN']), os.environ.get({ONE_NODE!r})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, token, left = json.loads(done.stdout.splitlines()[-1])
    assert "gcs_server" in {name for name, _ in found} and {ip for _, ip in found} == {"127.0.0.1"}
    assert token == 64 and left is None
    assert "authentication" not in (done.stdout + done.stderr).lower() and not done.stderr.strip(), done.stderr


@pytest.mark.ray
def test_the_demos_head_listens_on_loopback():
    with PrivateHead(cpus=1, alone=True) as head:
        started = psutil.Process(head.pid).children(recursive=True)
        found = {(p.name(), c.laddr.ip.removeprefix("::ffff:")) for p in started for c in connections(p)}
        assert {ip for _, ip in found} == {"127.0.0.1"} and "gcs_server" in {name for name, _ in found}
        code = "import ray; ray.init(); print(ray.get(ray.remote(lambda: 7).remote()))"
        done = subprocess.run([sys.executable, "-c", code], env=head.environment, capture_output=True, text=True)
        assert done.stdout.strip().endswith("7"), done.stderr


def connections(process):
    try:
        return [c for c in process.net_connections(kind="tcp") if c.status == "LISTEN"]
    except psutil.Error:
        return []


def test_what_the_user_chose_stays(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv(ONE_NODE, raising=False)
    with loopback_only():
        assert os.environ["RAY_AUTH_MODE"] == "disabled" and "RAY_AUTH_TOKEN" not in os.environ
        assert os.environ[ONE_NODE] == "0"
    assert ONE_NODE not in os.environ
