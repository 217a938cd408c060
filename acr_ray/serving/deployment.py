"""The service as an application of Ray Serve."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from ray import serve
from ray.serve import Application
from starlette.applications import Starlette

from acr_ray.serving.http import build_app
from acr_ray.serving.meters import ServeMeter
from acr_ray.serving.origin import Follower, Origin
from acr_ray.serving.seeds import LEAST_BYTES, read_private, read_secret
from acr_ray.serving.service import Service
from acr_ray.settings import UserError
from acr_ray.settings.base import Settings
from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from acr_ray.settings.serve import ServeSettings

NAME = "acr-ray"
TOKEN_VARIABLE = "ACR_RAY_SERVE_TOKEN"


class Deployment(Settings):
    """What is deployed: the ``args`` of an application in a file of Ray Serve.

    Secrets are not in here, for Ray keeps and shows it: replicas read them from files or from their environment.
    """

    model: str = Field(min_length=1, description="folder, runs:/RUN_ID, models:/NAME@ALIAS or models:/NAME/VERSION")
    tracking_uri: str = Field("", description="of MLflow; none: MLFLOW_TRACKING_URI")
    architecture: str | None = Field(None, description="the network, if it is code of yours: module:function")
    poll_seconds: float = Field(10.0, gt=0, description="between two looks at where the alias points")
    secret_file: str | None = Field(None, description="file behind all noise, the same for all replicas")
    token_file: str | None = Field(None, description="file with the token that clients must send")
    local: bool = Field(False, description="no token; only clients of this machine are answered")
    replicas: int = Field(1, ge=1, le=10_000, description="processes that answer")
    gpus: float = Field(0, ge=0, description="GPUs of a replica; 0: CPU")
    settings: ServeSettings = Field(default_factory=ServeSettings, description="budgets and limits")


_apps: list[Starlette] = []


def _app_of_this_replica() -> Starlette:
    return _apps[-1]


@serve.ingress(_app_of_this_replica)
class Replica:
    """One process that answers: a model, its passes, and the HTTP application in front of them."""

    def __init__(self, values: dict[str, Any]) -> None:
        # One thread: with another number the last bits of a logit could differ between replicas.
        torch.set_num_threads(1)
        # The thread that draws gives the interpreter away at each of torch's operations, and waits so long at most to
        # have it back while Ray's threads and HTTP have work: a tenth of all draws at Python's own 5 ms.
        sys.setswitchinterval(0.0005)
        deployment = Deployment.build(values, "serve")
        device = "cuda" if deployment.gpus else "cpu"
        self._service = Service(deployment.settings, read_secret(deployment.secret_file), ServeMeter(), device)
        tracking_uri = deployment.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        origin = Origin(deployment.model, tracking_uri, deployment.architecture, deployment.poll_seconds)
        self._follower = Follower(origin, self._service)
        self._follower.load()
        self._follower.follow()
        _apps.append(build_app(self._service, read_token(deployment)))

    def check_health(self) -> None:
        """Say to Ray that this replica can't answer any more, so that it is replaced."""
        if not self._service.alive:
            raise RuntimeError("the thread that draws has ended")

    def __del__(self) -> None:
        if hasattr(self, "_follower"):
            self._follower.stop()
            self._service.close(wait=False)


def read_token(deployment: Deployment) -> bytes | None:
    """Read the token that clients must send; None if the service is for this machine alone.

    Raises:
        UserError: there is none though others can reach the service, or it is too short.
    """
    if deployment.token_file:
        return read_private(Path(deployment.token_file).expanduser(), "--token-file")
    if token := os.environ.get(TOKEN_VARIABLE, "").strip().encode():
        if len(token) < LEAST_BYTES:
            raise UserError(f"{TOKEN_VARIABLE}: holds {len(token)} bytes; must be at least {LEAST_BYTES}")
        return token
    if deployment.local:
        return None
    raise UserError(f"--token-file: missing; a service that others can reach needs one (or {TOKEN_VARIABLE})")


def application(deployment: Deployment) -> Application:
    """Make the application that `ray.serve.run` takes."""
    made: Any = serve.deployment(
        Replica,
        name="smoothed",
        num_replicas=deployment.replicas,
        ray_actor_options={
            "num_cpus": 1,
            "num_gpus": deployment.gpus,
            "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
        },
        # The service's own queue answers 429; what is beyond it waits with Ray, whose 503 comes last.
        max_ongoing_requests=2 * deployment.settings.queue,
        max_queued_requests=2 * deployment.settings.queue,
        graceful_shutdown_timeout_s=deployment.settings.deadline_ms / 1000 + 5,
        health_check_period_s=5,
    )
    return made.bind(deployment.model_dump(mode="json"))


def build(args: dict[str, Any]) -> Application:
    """Make the application from the ``args`` of a file of Ray Serve; its ``import_path`` is this function.

    Raises:
        UserError: a value is missing or out of its range.
    """
    return application(Deployment.build(args, "serve"))
