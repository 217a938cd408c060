"""A private Ray head on this machine: loopback addresses, free ports, token authentication, gone afterwards."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

LOOPBACK = "127.0.0.1"
TRIES = 2


class HeadFailed(RuntimeError):
    """The head did not come up; the text has the end of its log."""


class PrivateHead:
    """``with PrivateHead(cpus=2) as head: subprocess.run([...], env=head.environment)``.

    Other Rays on the machine are neither used nor touched: own ports, own temporary folder, and RAY_ADDRESS set for
    everything that is started with `environment`. The token is a file that only this user can read.

    Args:
        cpus: logical CPUs of the node; None: all of the machine's.
        seconds: how long to wait for the head.
        alone: no other node will join it: all of Ray listens on loopback only. Else Ray puts the machine's own address
            in place of 127.0.0.1, and its control store, raylet and workers listen on all addresses (with the token).
    """

    def __init__(self, cpus: int | None = None, seconds: float = 120, alone: bool = False) -> None:
        self._cpus, self._seconds, self._alone = cpus, seconds, alone
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0  # of ``ray start``: all of the head's processes are below it
        # Ray puts sockets there, and their paths may have 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="acr-", dir="/tmp"))

    def __enter__(self) -> PrivateHead:
        port, dashboard, client, agent, metrics = _free_ports(5)
        token = self.folder / "token"
        token.touch(mode=0o600)
        self.token = secrets.token_hex(32)
        token.write_text(self.token)
        self.dashboard = f"http://{LOOPBACK}:{dashboard}"
        self.metrics = f"http://{LOOPBACK}:{metrics}/metrics"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_TOKEN")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": f"{LOOPBACK}:{port}",
            "RAY_API_SERVER_ADDRESS": self.dashboard,  # ray job submit would prefer one that the user has set
            "RAY_USAGE_STATS_ENABLED": "0",
            # What ray job stop leaves a job to save in, before it kills it; Ray's own default is three seconds.
            "RAY_JOB_STOP_WAIT_TIME_S": "30",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        if self._alone:
            # Ray's own switch for machines that form no cluster.
            self.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            f"--node-ip-address={LOOPBACK}",
            f"--port={port}",
            "--include-dashboard=true",
            f"--dashboard-host={LOOPBACK}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={agent}",
            f"--metrics-export-port={metrics}",
            "--min-worker-port=21000",
            "--max-worker-port=21999",
            f"--temp-dir={self.folder}",
            "--disable-usage-stats",
        ]
        if self._cpus is not None:
            command.append(f"--num-cpus={self._cpus}")
        self._log = self.folder / "head.log"
        for left in reversed(range(TRIES)):
            try:
                self._start(command)
                break
            except HeadFailed:
                # Ray gives its own processes 30 seconds, which a busy machine may not keep to the first time.
                self._end()
                if not left:
                    self.stop()
                    raise
            except BaseException:
                self.stop()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, command: list[str]) -> None:
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the caller alone, who then stops the head in order.
            self._process = process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.pid = process.pid
        self._wait(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        limit = time.monotonic() + self._seconds
        while b"Ray runtime started" not in self._log.read_bytes():
            if process.poll() is not None or time.monotonic() > limit:
                raise HeadFailed(f"the Ray head did not come up: {self._log.read_text()[-1500:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End this head and what it started, and nothing else; remove its temporary folder."""
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        if self._process is None:
            return
        # Listed while the tree stands: Ray's agents outlive their parents for a while under other names.
        started = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        # Ray's own farewell takes up to half a minute; nobody works on this cluster any more.
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        started += self._orphans()
        for process in started:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(started, 5)
        self._process = None

    def _orphans(self) -> list[psutil.Process]:
        """Processes of a head that failed to start: known by this head's folder, which nobody else names."""
        orphans = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and any(f"{self.folder}/" in part for part in process.cmdline()[1:]):
                    orphans.append(process)
        return orphans


def _end_with_parent() -> None:
    """Linux: have this process ended when its parent dies, however it dies; no cluster is left behind."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, below the range that the system hands out by itself and outside Ray's workers'."""
    ports: list[int] = []
    for port in range(23000 + secrets.randbelow(4000), 32000):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) and _binds(port):
                ports.append(port)
        if len(ports) == count:
            return ports
    raise HeadFailed("no free ports between 23000 and 32000")


def _binds(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
