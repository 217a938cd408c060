"""Answer requests with certified classes and radii: a service on Ray Serve.

MODEL is a folder of train or import, its checkpoint/, runs:/RUN_ID, models:/NAME@ALIAS or models:/NAME/VERSION. POST an
image to /v1/predict, /v1/certify or /v1/p_a; GET /v1/model, /healthz, /readyz. Runs until it is stopped (Ctrl-C or
SIGTERM). See docs/serve.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

from acr_ray.cli.command_line import command_line
from acr_ray.cli.options import CLUSTER
from acr_ray.cli.parser import Parser, given, number, whole
from acr_ray.cli.service_place import Place
from acr_ray.settings.errors import UserError
from acr_ray.settings.serve import ServeSettings

BUDGETS = {"sigma": "sigma", "n0": "n0", "noise": "noise", "max_draws": "max-draws", "alpha": "alpha", "radii": "radii"}
BUDGETS |= {"certificate": "certificate", "deadline_ms": "deadline-ms", "dtype": "dtype"}
LIMITS = {"rows": "rows", "chunk": "chunk", "queue": "queue", "images": "images", "body_bytes": "body-bytes"}
LIMITS |= {"pixels": "pixels", "fresh": "fresh"}


def run(
    model: str | None,
    place: Place,
    *,
    settings: Mapping[str, Any] | None = None,
    wait: Callable[[str], None] | None = None,
) -> None:
    """Serve a model until the process is stopped.

    Args:
        model: a folder of ours, ``runs:/RUN_ID``, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        place: where it runs.
        settings: fields of `ServeSettings` that are not to be the defaults.
        wait: called with the service's address once it answers; the service ends when it returns. None: waits for
            a signal.

    Raises:
        UserError: there is no such model, the port is taken, a token is missing, or a setting is out of its range.
    """
    if not model:
        raise UserError("MODEL: missing; give a folder of train or import, runs:/RUN_ID or models:/NAME@ALIAS")
    if not place.local and not place.token_file:
        raise UserError(f"--host {place.host}: others can reach it, so it needs --token-file (or leave --host out)")
    built = ServeSettings.build(dict(settings or {}), "serve")
    if built.dtype == "tf32" and not place.gpus_per_replica:
        raise UserError("--dtype tf32: is an arithmetic of GPUs (--gpus-per-replica); allowed on a CPU: float32")
    from acr_ray.cli.drivers.serving import serve_model  # loads Ray, which --help and a mistake need not wait for

    serve_model(model, place, built, wait)


def main(argv: list[str]) -> None:
    """Read the command line, and serve."""
    options = parser().parse_args(argv)
    run(options.model, _place(options), settings=given(ServeSettings, options))


def _place(options: argparse.Namespace) -> Place:
    if options.address:
        os.environ["RAY_ADDRESS"] = options.address
    fields = ("host", "port", "token_file", "secret_file", "tracking_uri", "architecture", "replicas", "verbose")
    values = {name: getattr(options, name) for name in fields}
    return Place(**values, poll_seconds=options.poll, gpus_per_replica=options.gpus_per_replica)


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s MODEL [--port P] [--max-draws N] [--deadline-ms MS] [OPTIONS]"
    parser = Parser(prog=command_line("serve"), usage=usage, description=__doc__)
    default = Place()
    add = parser.add_argument_group("what to serve").add_argument
    add("model", metavar="MODEL", nargs="?", help="folder, runs:/RUN_ID, models:/NAME@ALIAS or models:/NAME/VERSION")
    add("--tracking-uri", metavar="URI", help="MLflow [default: MLFLOW_TRACKING_URI, else ./mlflow.db]")
    add("--poll", type=number(0.1), default=default.poll_seconds, metavar="SECONDS", help="between two looks at where "
        f"the alias points [default: {default.poll_seconds:g}]")  # fmt: skip
    add("--model", dest="architecture", metavar="NAME", help="the network, if it is code of yours: module:function")
    titles = {**dict.fromkeys(BUDGETS, "budgets"), **dict.fromkeys(LIMITS, "limits")}
    defaults = {name: info.default for name, info in ServeSettings.model_fields.items()}
    parser.add_settings(ServeSettings, BUDGETS | LIMITS, defaults, groups=titles.__getitem__)
    add = parser.add_argument_group("who may ask").add_argument
    add("--host", default=default.host, help=f"others than loopback need a token [default: {default.host}]")
    add("--port", type=whole(0, 65535), default=8000, metavar="P", help="0: a free one [default: 8000]")
    add("--token-file", metavar="FILE", help="clients must send what it holds: Authorization: Bearer TOKEN")
    add("--secret-file", default=default.secret_file, metavar="FILE",
        help=f"secret behind all noise; made if it is absent [default: {default.secret_file}]")  # fmt: skip
    add = parser.add_argument_group(CLUSTER).add_argument
    add("--address", metavar="RAY", help="a cluster's address [default: RAY_ADDRESS, else a Ray of its own]")
    add("--replicas", type=whole(1, 10_000), default=1, metavar="K", help="processes that answer [default: 1]")
    add("--gpus-per-replica", type=number(0), default=0, metavar="G", help="0: CPU [default: 0]")
    add("--verbose", action="store_true", help="show what Ray logs")
    return parser
