"""The Compose stack under podman, in namespaces of its own: nothing of the machine's engine, network or ports is used.

podman 4 knows no conditions of `depends_on` and can't start what depends on a container that has ended. So the services
are started in the order that compose.yaml asks for, each when those before it are healthy, by their own health checks.
"""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import yaml

from tests.docker import building

PROJECT = "acrtest"
POSTGRES, S3 = "localhost/acr-ray-test-postgres", "localhost/acr-ray-test-s3"
STANDINS = building.ROOT / "tests" / "docker" / "standins"
WORKERS = 2

STORAGE = """[storage]
driver = "overlay"
graphroot = "{0}/graph"
runroot = "{0}/run"
[storage.options]
additionalimagestores = ["{1}"]
"""
CONTAINERS = """[containers]
cgroups = "disabled"
default_ulimits = ["nofile={1}:{1}", "nproc={2}:{2}"]
log_driver = "k8s-file"
[network]
network_config_dir = "{0}/networks"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
static_dir = "{0}/libpod"
tmp_dir = "{0}/tmp"
volume_path = "{0}/volumes"
"""
# cgroup2 beside cgroup1 confuses crun; /run is where podman keeps the state of the machine's own containers.
ENTER = """umount /sys/fs/cgroup/unified 2>/dev/null
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev/shm; ip link set lo up
exec sleep infinity"""


def missing() -> str:
    """Why the stack can't run here; empty where it can."""
    reason = building.missing("buildah", "debootstrap", "podman", "crun", "unshare", "nsenter", "ip")
    if not reason and not compose_program().exists():
        reason = "missing: podman-compose (pip install podman-compose)"
    return reason


def compose_program() -> Path:
    return Path(shutil.which("podman-compose") or Path(sys.executable).with_name("podman-compose"))


def make_standins() -> None:
    for name, image in (("postgres", POSTGRES), ("s3", S3)):
        if not building.exists(image):
            building.build(f"{name}.Dockerfile", image, folder=STANDINS)


class Stack:
    """``with Stack() as stack: stack.inside("head", "ray", "status")``."""

    def __enter__(self) -> Stack:
        self.folder = Path(mkdtemp(prefix="acrc-", dir="/tmp"))
        self.secrets = self.folder / "secrets"
        subprocess.run(["sh", building.ROOT / "docker/make-secrets.sh", self.secrets], check=True, capture_output=True)
        names = ("storage.conf", "containers.conf", "compose.yaml")
        storage, containers, self.compose = (self.folder / name for name in names)
        store = building.call("buildah", "info", "--format", "{{.store.GraphRoot}}").strip()
        storage.write_text(STORAGE.format(self.folder, store))
        limits = (resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        # podman asks for more than this machine may allow; -1 is "no limit".
        containers.write_text(CONTAINERS.format(self.folder, *(limit if limit > 0 else 65536 for limit in limits)))
        config = yaml.safe_load((building.ROOT / "docker/compose.yaml").read_text())
        self.order = config["services"]
        for service in config["services"].values():
            service.pop("build", None)
        services = config["services"].items()
        plain = {name: {k: v for k, v in service.items() if k != "depends_on"} for name, service in services}
        self.compose.write_text(yaml.safe_dump(config | {"services": plain}))
        self.environment = {
            **building.ENVIRONMENT,
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "ACR_RAY_IMAGE": building.NODE,
            "ACR_RAY_MLFLOW_IMAGE": building.MLFLOW,
            "ACR_RAY_POSTGRES_IMAGE": POSTGRES,
            "ACR_RAY_S3_IMAGE": S3,
            "ACR_RAY_SECRETS": str(self.secrets),
        }
        words = ["unshare", "-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", ENTER]
        self.holder = subprocess.Popen(words, env=self.environment)
        try:
            self.pid = self._first_inside()
            self._up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _first_inside(self) -> int:
        """The process whose namespaces the stack lives in: unshare's child, once it has set them up."""
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        for _ in range(100):
            found = children.read_text().split()
            if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "sleep":
                return int(found[0])
            time.sleep(0.1)
        raise building.BuildFailed("the namespaces for the stack did not come up")

    def __exit__(self, *_: object) -> None:
        self.holder.send_signal(signal.SIGKILL)  # --kill-child: takes every process in the namespace along
        self.holder.wait()
        time.sleep(1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, *words: object, seconds: int = 300, code: int | None = 0) -> str:
        """Run a command in the stack's namespaces, return what it printed; fails where the exit code is another."""
        done = self._run(*words, seconds=seconds)
        text = f"{done.stdout[-3000:]}{done.stderr[-2000:]}"
        assert code is None or done.returncode == code, f"{words}: exit code {done.returncode}\n{text}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def _run(self, *words: object, seconds: int = 300) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-m", "-n", "-p", "-t", str(self.pid), "--"]
        return subprocess.run(
            [*enter, *map(str, words)], capture_output=True, text=True, timeout=seconds, env=self.environment, cwd="/"
        )

    def inside(self, service: str, *words: object, number: int = 1, seconds: int = 300, code: int = 0, **env) -> str:
        """Run a command in a service's container."""
        settings = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
        return self.call("podman", "exec", *settings, self.name(service, number), *words, seconds=seconds, code=code)

    def name(self, service: str, number: int = 1) -> str:
        return f"{PROJECT}_{service}_{number}"

    def _up(self) -> None:
        """Start the services as their depends_on says."""
        started: set[str] = set()
        while len(started) < len(self.order):
            needs = {name: service.get("depends_on", {}) for name, service in self.order.items()}
            ready = [name for name in needs if name not in started and set(needs[name]) <= started]
            assert ready, "depends_on runs in a circle"
            for name in ready:
                for other, rule in needs[name].items():
                    self._wait(other, rule["condition"])
                scale = ["--scale", f"{name}={WORKERS}"] if name == "worker" else []
                words = [compose_program(), "-p", PROJECT, "-f", self.compose]
                self.call(*words, "up", "--detach", "--no-build", *scale, name)
                started.add(name)
        for number in range(1, WORKERS + 1):
            self._wait("worker", "service_healthy", number)

    def _wait(self, service: str, condition: str, number: int = 1) -> None:
        if condition == "service_completed_successfully":
            assert self.call("podman", "wait", self.name(service)).strip() == "0"
        elif condition == "service_healthy":
            self.wait_until_healthy(service, number)

    def healthy(self, service: str, number: int = 1) -> bool:
        """The health check that the image or compose.yaml defines, run now: no systemd here that would."""
        return self._run("podman", "healthcheck", "run", self.name(service, number)).returncode == 0

    def wait_until_healthy(self, service: str, number: int = 1, seconds: int = 180) -> None:
        limit = time.monotonic() + seconds
        while not self.healthy(service, number):
            if time.monotonic() > limit:
                log = self.call("podman", "logs", "--tail", 30, self.name(service, number), code=None)
                raise AssertionError(f"{service} is not healthy after {seconds} s\n{log}")
            time.sleep(2)
