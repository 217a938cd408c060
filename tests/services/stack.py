"""PostgreSQL, an S3 stand-in and an MLflow server, private to a test: loopback, free ports, gone afterwards."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

BUCKET = "acr-ray"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """A cluster of its own, as user postgres where this process is root (PostgreSQL refuses root)."""

    def __init__(self) -> None:
        # Not below pytest's folder, which another user cannot enter.
        folder = self._folder = Path(tempfile.mkdtemp(prefix="acr-pg-", dir="/tmp"))
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
        found = programs[-1] if programs else shutil.which("initdb")
        assert found, "PostgreSQL is missing: make services-test installs it"
        self._bin, self._as = Path(found).parent, {"user": "postgres"} if os.getuid() == 0 else {}
        self._data, password = folder / "data", folder / "password"
        self.port, self._password = free_port(), secrets.token_hex(16)
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self._as:
            for path in (folder, password):
                shutil.chown(path, "postgres")
        self._run("initdb", "-D", self._data, "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={password}")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", folder / "log", "-o", options, "start")
        # With its driver: SQLAlchemy 2.1 takes psycopg 3 for a plain postgresql://.
        self.uri = f"postgresql+psycopg2://mlflow:{self._password}@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        # Not through a pipe: the server inherits it and keeps it open.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._as)

    def close(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)


class S3:
    """moto's S3, in memory, with a bucket."""

    def __init__(self) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        self._server.start()
        self.url = "http://{}:{}".format(*self._server.get_host_and_port())
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8)}
        self.environment = keys | {"AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_S3_ENDPOINT_URL": self.url}
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=BUCKET)

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def close(self) -> None:
        self._server.stop()


class MlflowServer:
    """``mlflow server``, which can be killed and started again on the same port."""

    def __init__(self, store: str, environment: dict[str, str], log: Path, *options: str) -> None:
        self._store, self._environment, self._log, self._options = store, environment, log, options
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self, wait: bool = True) -> None:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
            "--backend-store-uri",
            self._store,
            "--workers",
            1,
            *self._options,
        ]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_"))}
        with self._log.open("ab") as stream:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env=clean | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | self._environment,
            )
        limit = time.monotonic() + 180
        while wait and not self._answers():
            assert self._process.poll() is None and time.monotonic() < limit, self._log.read_text()[-3000:]
            time.sleep(0.3)

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL for the server and its workers."""
        started = [*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)]
        for process in started:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(started, 10)
        self._process.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
