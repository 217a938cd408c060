"""Where and as what a service runs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where and as what the service runs. Changes nothing of its answers.

    Attributes:
        host, port: it listens on; port 0: a free one.
        token_file: clients must send what it holds; needed for a host that others can reach.
        secret_file: behind all noise; made if it is absent.
        tracking_uri: of MLflow; None: MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.
        architecture: the network, if it is code of the user's.
        poll_seconds: between two looks at where an alias points.
        replicas: processes that answer.
        gpus_per_replica: 0: CPU.
        verbose: show what Ray logs.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: str | None = None
    secret_file: str = "~/.acr-ray/serve-secret"
    tracking_uri: str | None = None
    architecture: str | None = None
    poll_seconds: float = 10.0
    replicas: int = 1
    gpus_per_replica: float = 0
    verbose: bool = False

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the host."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
