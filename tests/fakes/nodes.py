"""Nodes of a Ray cluster on this machine that see another /dev/shm or storage than the head does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil


def cannot_unshare() -> str:
    """Why no mount namespace can be made here; empty where one can."""
    if not shutil.which("unshare"):
        return "unshare (util-linux) is not on this machine"
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    return f"no mount namespaces here (needs root): {done.stderr.strip()}" if done.returncode else ""


class OddNode:
    """``ray start`` that joins a head, in a mount namespace of its own.

    Args:
        head: a `acr_ray.cli.private_head.PrivateHead`.
        hidden: a folder in whose place this node sees an empty one of its own.
        shared_memory: MiB of this node's /dev/shm, of which only 2 are free.
    """

    def __init__(self, head, log: Path, hidden: Path | None = None, shared_memory: int | None = None, cpus: int = 1):
        steps = [f"mount -t tmpfs tmpfs {hidden}"] if hidden else []
        if shared_memory:
            steps += [f"mount -t tmpfs -o size={shared_memory}m tmpfs /dev/shm"]
            steps += [f"head -c {shared_memory - 2}M /dev/zero > /dev/shm/full"]
        start = f"{sys.executable} -m ray.scripts.scripts start --address={head.environment['RAY_ADDRESS']} --block "
        start += f"--num-cpus={cpus} --object-store-memory=80000000 --disable-usage-stats "
        start += "--min-worker-port=22000 --max-worker-port=22999"
        self._command = ["unshare", "-m", "sh", "-c", " && ".join([*steps, f"exec {start}"])]
        self._log, self._environment, self._dashboard = log, head.environment, head.dashboard
        # Ray gives its own processes 30 seconds, which a busy machine may not keep to.
        assert self._started() or self._started() or self._started(), log.read_text()[-2000:]

    def _started(self) -> bool:
        with self._log.open("wb") as stream:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=stream, stderr=stream, start_new_session=True
            )
        limit = time.monotonic() + 120
        while b"Ray runtime started" not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > limit:
                self._kill()
                return False
            time.sleep(0.2)
        return True

    def close(self) -> None:
        """SIGKILL for all that it started, and nothing else; returns when the head knows."""
        self._kill()
        limit = time.monotonic() + 120
        while self._others():
            assert time.monotonic() < limit, "the head still holds the killed node to be alive"
            time.sleep(0.5)

    def _others(self) -> int:
        """Living nodes beside the head."""
        token = Path(self._environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        asked = urllib.request.Request(f"{self._dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            rows = json.load(answer)["data"]["result"]["result"]
        return sum(row["state"] == "ALIVE" for row in rows) - 1

    def _kill(self) -> None:
        started = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.kill()
        for process in started:
            try:
                process.kill()
            except psutil.Error:
                continue
        self._process.wait()
