"""`ray up` with cluster/ray-up/local.yaml: hosts reached by SSH, from a host that only launches and submits.

Not as a user would have it: the packages are this Python's own, not downloaded again, and no `ray stop` is called.
"""

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml

from tests.cluster.files import CLUSTER, ROOT
from tests.cluster.hosts import PATH, Network, absent, until
from tests.cluster.hosts import missing as missing_hosts
from tests.fakes.jobs import epochs_done

DASHBOARD = "http://127.0.0.1:8265"
SSHD = """
ListenAddress {address}
HostKey {key}
AuthorizedKeysFile {key}.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
"""


def missing() -> str:
    """Why nothing can be launched on this machine; empty where it can."""
    programs = absent("sshd", "ssh", "ssh-keygen", "rsync")
    return f"{programs} not installed (Debian: openssh-server, rsync)" if programs else missing_hosts()


WHY_NOT = missing()
pytestmark = [
    pytest.mark.launcher,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"),
    pytest.mark.timeout(900),
]


class Launched(Network):
    """Two machines with nothing but Python and SSH, and one from which `ray up` brings up a cluster on them."""

    def __init__(self) -> None:
        super().__init__(["head", "worker", "client"])
        self.head, self.worker, self.client = self.hosts[1:]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        self.environment = kept | {
            "HOME": "/root",
            "PATH": f"{sys.prefix}/bin:{PATH}",
            "RAY_AUTH_MODE": "token",
            "RAY_UP_enable_autoscaler_v2": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        try:
            self._key = self.base / "id_ed25519"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._key], check=True)
            self._wheels = self.base / "wheels"
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", self._wheels]
            subprocess.run([*download, "setuptools>=77"], check=True)
            for host in (self.head, self.worker, self.client):
                self._home(host)
            for host in (self.head, self.worker):
                self._prepare(host)
            self.config = self._config()
            self._up()
        except BaseException:
            self.end()
            raise

    def _home(self, host) -> None:
        """A home folder of its own: what this machine's has, and changes that only this host sees."""
        layers = [self.base / f"{host.name}-{kind}" for kind in ("home", "work")]
        for layer in layers:
            layer.mkdir()
        options = f"lowerdir=/root,upperdir={layers[0]},workdir={layers[1]}"
        host.run("mount", "-t", "overlay", "overlay", "-o", options, "/root")
        host.run("rm", "-rf", "/root/.ray", "/root/acr-ray", "/root/acr-ray-venv")
        # By its default route a host knows its own address.
        host.run("ip", "route", "add", "default", "dev", "eth0")

    def _prepare(self, host) -> None:
        """SSH, and a virtual environment that finds the packages of this one."""
        configuration = self.base / f"{host.name}-sshd"
        configuration.write_text(SSHD.format(address=host.address, key=self._key))
        host.run("mkdir", "-p", "/run/sshd")
        self.started.append(
            host.start([shutil.which("sshd", path=PATH), "-D", "-e", "-f", configuration], {"PATH": PATH})
        )
        host.run(sys.executable, "-m", "venv", "/root/acr-ray-venv")
        packages = sysconfig.get_path("purelib")
        inside = packages.replace(sys.prefix, "/root/acr-ray-venv")
        host.run("sh", "-c", f"echo {packages} > {inside}/installed.pth")
        # No network leads to a package index; what builds acr-ray is taken along.
        host.run("mkdir", "-p", "/root/.config/pip")
        settings = f"[global]\\nno-index = true\\nfind-links = {self._wheels}\\n"
        host.run("sh", "-c", f"printf '{settings}' > /root/.config/pip/pip.conf")
        host.run("ln", "-s", f"{sys.prefix}/bin/ray", "/root/acr-ray-venv/bin/ray")

    def _config(self):
        """The repository's file with these machines in it."""
        config = yaml.safe_load((CLUSTER / "ray-up" / "local.yaml").read_text().replace("/shared", str(self.shared)))
        config["provider"] |= {"head_ip": self.head.address, "worker_ips": [self.worker.address]}
        config |= {"min_workers": 1, "max_workers": 1}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self._key)}
        for kind in ("head", "worker"):
            commands = config[f"{kind}_start_ray_commands"]
            config[f"{kind}_start_ray_commands"] = [c for c in commands if not c.endswith("ray stop")]
        path = self.base / "local.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def _up(self) -> None:
        self.call("sh", "-c", "umask 077; ray get-auth-token --generate >/dev/null")
        self.token = self.call("cat", "/root/.ray/auth_token").strip()
        self.call("ray", "up", "-y", "--no-config-cache", self.config, seconds=400)
        self.started.append(self.client.start(["ray", "dashboard", self.config], self.environment))
        until(lambda: len(self.alive()) == 2, 120, self.client.log)

    def call(self, *command: object, seconds: float = 120, code: int = 0) -> str:
        """What a command on the client prints; its log tells where it failed."""
        log = self.base / "command.log"
        log.unlink(missing_ok=True)
        process = self.client.start(list(command), self.environment, log)
        self.started.append(process)
        found = process.wait(seconds)
        assert found == code, f"{command}: {found}\n{log.read_text()[-4000:]}"
        return log.read_text()

    def ask(self, *options: str) -> str:
        return self.client.run("curl", "-s", "-w", "\n%{http_code}", *options, f"{DASHBOARD}/api/v0/nodes", code=None)

    def alive(self) -> list[str]:
        return [part for part in self.ask("-H", f"Authorization: Bearer {self.token}").split('"') if part == "ALIVE"]


@pytest.fixture(scope="module")
def launched():
    running = Launched()
    yield running
    running.end()


def test_a_job_runs_on_what_ray_up_brought_up(launched):
    assert launched.ask().endswith("401"), "the dashboard is for those with the token"
    out = launched.shared / "run"
    job = launched.client.start(
        ["ray", "job", "submit", "--address", DASHBOARD, "--working-dir", ROOT, "--", "python", "-m", "jobs.train",
         "digits-gaussian", "--training.epochs", "4", "--training.milestones", "", "--training.e_t", "1",
         "--no-tracking", "--out", out],
        launched.environment, launched.base / "job.log",
    )  # fmt: skip
    launched.started.append(job)
    seen = []
    until(lambda: job.poll() is not None or seen or seen.extend(launched.worker.processes("RayTrainWorker")), 200)
    assert job.wait(200) == 0, (launched.base / "job.log").read_text()[-4000:]
    assert seen, "the worker worked"
    assert epochs_done(out) == 4 and (out / "summary.json").exists()
