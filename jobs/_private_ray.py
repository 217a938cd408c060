"""A Ray for one process: on loopback alone, with a token that nobody else has."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Ray's own switch for machines that form no cluster: their node's address is 127.0.0.1, and Ray then listens nowhere
#: else. Without it Ray puts the machine's address in place of a loopback one, and listens on all of them.
ONE_NODE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def alone() -> Iterator[None]:
    """While a private Ray is started: keep it on loopback, and closed to whoever else is on this machine.

    What the user has chosen (``RAY_AUTH_MODE``) stays.
    """
    before = os.environ.get(ONE_NODE)
    os.environ[ONE_NODE] = "0"
    if "RAY_AUTH_MODE" not in os.environ:
        # For this process and those that it starts; it ends with them.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with suppress(ImportError, AttributeError):  # Ray has read both when it was imported
        from ray._private import ray_constants
        from ray._raylet import Config

        ray_constants.ENABLE_RAY_CLUSTER = False
        Config.initialize("")
    try:
        yield
    finally:
        if before is None:
            del os.environ[ONE_NODE]
        else:
            os.environ[ONE_NODE] = before
