"""The private head: loopback, token, and nothing left behind."""

import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest

from acr_ray.cli.private_head import PrivateHead
from tests.fakes.jobs import ROOT, wait_for

pytestmark = pytest.mark.ray


def test_a_request_without_the_token_is_refused(head):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=10)
    assert refused.value.code == 401
    token = (head.folder / "token").read_text()
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    assert urllib.request.urlopen(request, timeout=10).status == 200
    assert stat.S_IMODE(os.stat(head.folder / "token").st_mode) == 0o600
    command = ["ray", "job", "list", "--address", head.dashboard]
    wrong = head.environment | {"RAY_AUTH_TOKEN_PATH": "/dev/null"}
    assert subprocess.run(command, env=wrong, capture_output=True, timeout=120).returncode != 0


def test_the_dashboard_listens_on_loopback_only(head):
    port = int(head.dashboard.rsplit(":", 1)[1])
    listening = [c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]
    assert listening and set(listening) <= {"127.0.0.1", "::1"}


@pytest.mark.slow
def test_a_head_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "import os, time; from acr_ray.cli.private_head import PrivateHead\n"
        "with PrivateHead(cpus=1) as head:\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(head.pid)); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", process=process)
    head = psutil.Process(int((tmp_path / "pid").read_text()))
    below = head.children(recursive=True)
    assert below
    process.kill()
    process.wait()
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in [head, *below]), 60)


@pytest.mark.slow
def test_two_heads_live_side_by_side():
    with PrivateHead(cpus=1) as one, PrivateHead(cpus=1) as other:
        assert one.dashboard != other.dashboard and one.folder != other.folder
        command = ["ray", "job", "list", "--address", one.dashboard]
        assert subprocess.run(command, env=one.environment, capture_output=True, timeout=120).returncode == 0
    assert not one.folder.exists()
