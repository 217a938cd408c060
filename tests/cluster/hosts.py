"""Hosts on one machine: each has its own network, processes, /dev/shm, /tmp/ray and name; a bridge joins them.

Nothing is left behind and nothing else is touched: the namespaces have no names and live as long as their first
process, which ends with the test's process, however that ends, and takes everything within the host along.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.cluster.files import ROOT

NETWORK = "10.77.0"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # what root's programs are found on, too
#: A silent host is given up after 8 to 12 s (cluster/README.md, Faults); on head, workers and drivers alike.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
BIRTH = """
mount -t tmpfs -o size=2g tmpfs /dev/shm
mkdir -p /tmp/ray && mount --bind {local} /tmp/ray
hostname {name}
ip link set lo up
echo born
while true; do sleep 3600 & wait $!; done  # the first process of a host: buries what loses its parent
"""


def missing() -> str:
    """Why there can be no hosts on this machine; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    programs = absent("ip", "iptables", "unshare", "nsenter", "curl")
    if programs:
        return f"{programs} not installed (Debian: iproute2, iptables, util-linux, curl)"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"], capture_output=True)
    return "" if tried.returncode == 0 else f"unshare is not allowed here: {tried.stderr.decode().strip()}"


def absent(*programs: str) -> str:
    """Those of the programs that this machine lacks."""
    return ", ".join(name for name in programs if not shutil.which(name, path=PATH))


class Host:
    """A machine of its own, as far as its processes can tell."""

    def __init__(self, name: str, base: Path, number: int) -> None:
        self.name, self.number, self.address = name, number, f"{NETWORK}.{number}"
        self.log = base / f"{name}.log"
        local = base / name
        local.mkdir()
        command = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        self._outer = subprocess.Popen(
            [*command, "bash", "-ec", BIRTH.format(local=local, name=name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=_end_with_parent,
            start_new_session=True,
        )
        if self._outer.stdout.readline().strip() != "born":
            raise RuntimeError(f"host {name} did not come up")
        self.first = psutil.Process(self._outer.pid).children()[0]
        self._enter = ["nsenter", f"--target={self.first.pid}", "--net", "--mount", "--pid", "--uts", f"--wdns={ROOT}"]

    def start(self, command: list[str], environment: dict[str, str], log: Path | None = None) -> subprocess.Popen:
        """A process on this host."""
        with open(log or self.log, "ab") as output:
            return subprocess.Popen(
                [*self._enter, *map(str, command)],
                env=environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def run(self, *command: str, environment: dict[str, str] | None = None, code: int | None = 0) -> str:
        """What a short command prints; fails where its exit code is another (None: any)."""
        done = subprocess.run([*self._enter, *command], env=environment, capture_output=True, text=True, timeout=60)
        assert code in (None, done.returncode), f"{self.name}: {shlex.join(command)}: {done.stderr}"
        return done.stdout

    def processes(self, word: str = "") -> list[psutil.Process]:
        """What runs on this host (without its first process), found by its process namespace."""
        found, space = [], os.readlink(f"/proc/{self.first.pid}/ns/pid")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                inside = process.pid != self.first.pid and os.readlink(f"/proc/{process.pid}/ns/pid") == space
                if inside and any(word in part for part in process.cmdline()):
                    found.append(process)
        return found

    def cut(self) -> None:
        """Nothing comes in, nothing goes out; nobody is told, as with a pulled cable."""
        for chain in ("INPUT", "OUTPUT"):
            self.run("iptables", "-A", chain, "-i" if chain == "INPUT" else "-o", "eth0", "-j", "DROP")

    def mend(self) -> None:
        self.run("iptables", "-F")

    def kill_everything(self) -> None:
        """As when the power fails; what supervises this host starts its Ray again."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "supervise" not in " ".join(process.cmdline()) and process.name() != "sleep":
                    process.send_signal(signal.SIGKILL)

    def end(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.first.kill()  # the kernel ends all of its process namespace
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._outer.wait(10)
        self._outer.kill()
        self._outer.wait()


class Network:
    """Hosts on one bridge, with addresses 10.77.0.1 and up, and a folder that all see, as NFS would be.

    Attributes:
        hosts: the switch and then the hosts, by number.
        started: what was started on them.
    """

    def __init__(self, names: list[str]) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="acr-hosts-", dir="/tmp"))
        self.shared = self.base / "shared"
        self.shared.mkdir()
        self.hosts: list[Host] = []
        self.started: list[subprocess.Popen] = []
        try:
            for number, name in enumerate(["switch", *names]):
                self.hosts.append(Host(name, self.base, number))
            self._wire()
        except BaseException:
            self.end()
            raise

    def _wire(self) -> None:
        switch = self.hosts[0]
        switch.run("ip", "link", "add", "bridge", "type", "bridge")
        switch.run("ip", "link", "set", "bridge", "up")
        for host in self.hosts[1:]:
            port = f"port{host.number}"
            inner, outer = ["name", "eth0", "netns", host.first.pid], ["name", port, "netns", switch.first.pid]
            words = ["ip", "link", "add", *inner, "type", "veth", "peer", *outer]
            subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=60)
            switch.run("ip", "link", "set", port, "master", "bridge", "up")
            host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")

    def end(self) -> None:
        for host in reversed(self.hosts):
            host.end()
        for process in self.started:
            process.kill()
            process.wait()
        shutil.rmtree(self.base, ignore_errors=True)


class Hosts(Network):
    """A Ray of a head without work, workers of one logical CPU each, and a host that only submits."""

    def __init__(self, workers: int) -> None:
        super().__init__(["head", *(f"worker{i}" for i in range(1, workers + 1)), "client"])
        self.head, *self.workers, self.client = self.hosts[1:]
        self.token = self.shared / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        self.environment = (
            kept
            | QUICK
            | {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.token),
                "RAY_ADDRESS": f"{NETWORK}.1:6379",
                "RAY_USAGE_STATS_ENABLED": "0",
                "GLOO_SOCKET_IFNAME": "eth0",
                "OMP_NUM_THREADS": "1",
                "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
                "RAY_JOB_STOP_WAIT_TIME_S": "30",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            }
        )
        self.dashboard = f"http://{self.head.address}:8265"
        try:
            self._supervise(self.head, "--head", "--port=6379", "--num-cpus=0", f"--dashboard-host={self.head.address}")
            # One after the other: a node has 30 s to start, and they are many for the few cores of one machine.
            for worker in self.workers:
                self._supervise(worker, f"--address={self.head.address}:6379", "--num-cpus=1")
            self.wait_for_workers()
        except BaseException:
            self.end()
            raise

    def _supervise(self, host: Host, *options: str) -> None:
        """`ray start`, and again where it ends, as systemd, Kubernetes and Compose do."""
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={host.address}"]
        ray += [*options, "--disable-usage-stats", "--object-store-memory=100000000", "--num-gpus=0"]
        loop = f": supervise; while true; do {shlex.join(ray)}; sleep 2; done"
        self.started.append(host.start(["bash", "-c", loop], self.environment))
        until(lambda: "Ray runtime started" in host.log.read_text(), 180, host.log)

    def wait_for_workers(self, seconds: float = 150) -> None:
        """Until Ray counts all workers as alive (and the dead, which it counts too, as dead)."""
        wanted = {worker.address for worker in self.workers}
        until(lambda: self.alive() >= wanted, seconds, *(worker.log for worker in self.workers))

    def alive(self) -> set[str]:
        """Addresses of the nodes that Ray has as alive."""
        status, answer = self.ask("/api/v0/nodes", self.token.read_text())
        if status != 200:
            return set()
        rows = json.loads(answer)["data"]["result"]["result"]
        return {row["node_ip"] for row in rows if row["state"] == "ALIVE"}

    def ask(self, path: str, token: str | None) -> tuple[int, str]:
        """GET from the dashboard, on the submitting host. Returns the status (0: no answer) and the text."""
        command = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", f"{self.dashboard}{path}"]
        try:
            answer = self.client.run(*command, *(["--header", f"Authorization: Bearer {token}"] if token else []))
        except AssertionError:
            return 0, ""
        text, status = answer.rsplit("\n", 1)
        return int(status), text

    def submit(self, *command: object) -> subprocess.Popen:
        """`ray job submit` on the submitting host, which shares nothing with the others but the storage."""
        self.client.log = self.base / f"job-{len(self.started)}.log"
        words = ["ray", "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--", "python", *command]
        process = self.client.start([*map(str, words)], {**self.environment, "RAY_ADDRESS": self.dashboard})
        process.log = self.client.log
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen, seconds: float = 500) -> str:
        """Wait for a submitted job; what it printed. Fails where it failed."""
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = f"none after {seconds} s"
        printed = process.log.read_text(errors="replace")
        assert code == 0, f"job ended with {code}\n{printed[-4000:]}"
        return printed


def until(condition, seconds: float, *logs: Path) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            tails = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)
            raise AssertionError(f"waited {seconds} s in vain\n{tails}")
        time.sleep(0.5)


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
