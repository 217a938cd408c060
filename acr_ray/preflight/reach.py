"""Joining a Ray cluster, and what is wrong if that fails, in one line.

`ray.init` alone waits 20 seconds for a token that is refused, minutes for a head that is not there, and names neither.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

from acr_ray.preflight.tls import tls_problem, uses_tls
from acr_ray.settings import UserError

SECONDS = 5.0  # for a connection to the head, and for its greeting
ANSWER = 60.0  # for its answer, which a busy head may take a while to give
STRANGER = (
    "something listens there, but it does not answer as a Ray head does; the head's port is what ray start prints "
    "(6379 by default), and {port} may be another program's or another port of Ray"
)
_SETTINGS = 4  # the frame type
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
TOKEN_ADVICE = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"


def check_reachable(address: str, environment: Mapping[str, str] = os.environ) -> None:
    """Whether the head at ``HOST:PORT`` answers, with or without TLS as this process, and takes its token.

    Raises:
        UserError: it does not; says why and what to do.
    """
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"RAY_ADDRESS {address}: that is the dashboard's address, for ray job submit; a job that is started by "
            "hand needs the head's HOST:PORT, or no RAY_ADDRESS for a private Ray"
        )
    if "://" in address or address in ("auto", "local"):
        return  # a Ray client's address, or one that Ray finds by itself
    host, port = _parts(address)
    if problem := token_problem(environment):
        raise UserError(f"RAY_ADDRESS {address}: {problem}; {TOKEN_ADVICE}")
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UserError(
            f"RAY_ADDRESS {address}: no Ray head can be reached there ({reason}); check the address, that the head "
            f"runs (ray status there), and that port {port} is open from here"
        ) from error
    if problem := tls_problem(host, port, environment):
        raise UserError(f"RAY_ADDRESS {address}: {problem}")
    if not uses_tls(environment) and not _speaks_grpc(host, port):
        raise UserError(f"RAY_ADDRESS {address}: {STRANGER.format(port=port)}")
    _ask(address, port)


def token_problem(environment: Mapping[str, str]) -> str | None:
    """Return why there is no token to show, if one is asked for; Ray itself would abort the process."""
    if environment.get("RAY_AUTH_MODE") != "token" or environment.get("RAY_AUTH_TOKEN"):
        return None
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(environment.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    where = f"RAY_AUTH_TOKEN_PATH {path}" if named else f"no RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN, and {path}"
    try:
        return None if path.read_text().strip() else f"{where} is empty"
    except (OSError, ValueError) as error:
        return f"{where} cannot be read ({getattr(error, 'strerror', None) or 'not text'})"


def explained(address: str, error: BaseException) -> UserError:
    """Return what `ray.init` raised, as one line that says what to do."""
    text = " ".join(str(error).split())
    versions = re.search(r"started with: Ray: (\S+) Python: (\S+) This process .*Ray: (\S+) Python: (\S+)", text)
    if versions:
        there, here = versions.group(1, 2), versions.group(3, 4)
        return UserError(
            f"RAY_ADDRESS {address}: version mismatch: the cluster has Ray {there[0]} and Python {there[1]}, this "
            f"process Ray {here[0]} and Python {here[1]}; use the same ones (pip install ray=={there[0]}), or "
            "ray job submit, which runs the job with the cluster's own"
        )
    return UserError(f"RAY_ADDRESS {address}: no Ray cluster can be joined there ({text[:300]})")


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"RAY_ADDRESS {address}: must be HOST:PORT, with a port from 1 to 65535, such as 10.0.0.1:6379")
    return host.strip("[]"), int(port)


def _speaks_grpc(host: str, port: int) -> bool:
    """Whether what listens there greets as every gRPC server does: an HTTP/2 SETTINGS frame, unasked for more."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS) as peer:
            peer.sendall(_GREETING)
            got = b""
            while len(got) < 9:
                part = peer.recv(9 - len(got))
                if not part:
                    return False
                got += part
    except OSError:
        return False
    return got[3] == _SETTINGS and got[5:] == bytes(4)


def _ask(address: str, port: int) -> None:
    """Show the head this process's token: answered at once, where `ray.init` tries for 20 seconds, or for ever."""
    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled: no stubs
        from ray.exceptions import AuthenticationError
    except ImportError:  # another version of Ray: its own, slower answer will do
        return
    failed: list[Exception] = []

    def ask() -> None:
        try:
            GcsClient(address=address)
        except Exception as error:
            failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)  # Ray's own call has no limit
    with _quiet_stderr():
        asking.start()
        asking.join(ANSWER)
    if asking.is_alive() or any("method not found" in str(error).lower() for error in failed):
        raise UserError(f"RAY_ADDRESS {address}: {STRANGER.format(port=port)}")
    if failed and isinstance(failed[0], AuthenticationError):
        raise UserError(
            f"RAY_ADDRESS {address}: the head refuses this process's token, or the lack of one; {TOKEN_ADVICE}"
        ) from failed[0]
    # Anything else is said better by ray.init.


class _quiet_stderr:
    """Ray's C++ parts write to the descriptor itself; what they say is said again by us, in one line."""

    def __enter__(self) -> None:
        self._kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *error: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
