"""The body of serve: Ray Serve with one application, until a signal comes."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.progress import Waiting
from acr_ray.cli.ray_session import connect
from acr_ray.cli.service_place import Place
from acr_ray.models import read_card
from acr_ray.models.checkpoint import check_named_by_user
from acr_ray.serving.seeds import read_secret
from acr_ray.settings import UserError
from acr_ray.settings.serve import ServeSettings
from acr_ray.storage import Folder
from acr_ray.tracking import default_uri
from acr_ray.tracking.runs import resolve_checkpoint


def serve_model(model: str, place: Place, settings: ServeSettings, wait: Callable[[str], None] | None) -> None:
    """Serve until ``wait`` returns, or a signal comes; see `acr_ray.cli.commands.serve.run`."""
    tracking_uri = place.tracking_uri or default_uri(Folder("."))
    location = model if "://" in model or ":/" in model else str(Path(model).expanduser().absolute())
    folder, _ = resolve_checkpoint(location, tracking_uri)
    card = read_card(folder)
    check_named_by_user(card, place.architecture, model)
    if settings.sigma is None and card.sigma is None:
        raise UserError(f"--sigma: missing; {model} does not say the noise that it was trained on")
    read_secret(place.secret_file)  # here, so that all replicas find it
    try:
        from acr_ray.serving.deployment import NAME, Deployment, application, read_token
    except ImportError as error:
        raise UserError(f"Ray Serve is not installed ({error}); pip install 'acr-ray[serve]'") from None
    deployment = Deployment(
        model=location,
        tracking_uri=tracking_uri,
        architecture=place.architecture,
        poll_seconds=place.poll_seconds,
        secret_file=str(Path(place.secret_file).expanduser().absolute()),
        token_file=place.token_file and str(Path(place.token_file).expanduser().absolute()),
        local=place.local,
        replicas=place.replicas,
        gpus=place.gpus_per_replica,
        settings=settings,
    )
    read_token(deployment)
    port = _free_port(place.host, place.port)
    import ray

    ours = not (ray.is_initialized() or os.environ.get("RAY_ADDRESS"))
    with Waiting() as waiting:
        waiting.begin("starting Ray Serve")
        connect(place.verbose)
        from ray import serve

        if not place.verbose:
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(proxy_location="HeadOnly", http_options={"host": place.host, "port": port})
            serve.run(application(deployment), name=NAME, route_prefix="/")
        except RuntimeError as error:
            _end(ours)
            raise CommandFailed(f"the service did not start ({error}); --verbose shows the replicas' logs") from error
    address = f"http://{f'[{place.host}]' if ':' in place.host else place.host}:{port}"
    about = f"{card.architecture}, sigma {settings.sigma or card.sigma:g}, SHA-256 {card.sha256[:16]}…"
    print(f"serving {model} ({about}) at {address}\nstop it with Ctrl-C", flush=True)
    try:
        (wait or _until_a_signal)(address)
    except (KeyboardInterrupt, SystemExit):
        print("stopping: what was begun is answered", flush=True)
    finally:
        _end(ours)


def _end(ours: bool) -> None:
    """End the application, and with it the Ray that was started for it; one that others use goes on."""
    import ray
    from ray import serve

    from acr_ray.serving.deployment import NAME

    serve.delete(NAME)
    if ours:
        ray.shutdown()


def _until_a_signal(address: str) -> None:
    threading.Event().wait()


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises UserError if it can't be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise UserError(f"--host {host} --port {port}: can't be listened on ({error.strerror})") from None
        return tried.getsockname()[1]
