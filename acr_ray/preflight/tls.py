"""Ray's TLS: whether this process and the head agree on it, found out before Ray waits half a minute in silence."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

CERTIFICATE, KEY, AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"
ANSWER_WITHIN = 5.0  # seconds for a handshake
REFUSED_WITHIN = 0.5  # seconds in which a server that refuses our certificate says so; TLS 1.3 does after the handshake


def uses_tls(environment: Mapping[str, str]) -> bool:
    return environment.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def tls_problem(host: str, port: int, environment: Mapping[str, str]) -> str | None:
    """Why Ray could not talk to the head there, and what to do; None if nothing is known to be wrong.

    Args:
        host, port: of a head that takes connections.
        environment: this process's; ``RAY_USE_TLS`` and the three files that go with it.
    """
    wanted = uses_tls(environment)
    speaks = _speaks_tls(host, port)
    if not wanted:
        if not speaks:
            return None
        return f"the head uses TLS, this process does not; set RAY_USE_TLS=1, {CERTIFICATE}, {KEY} and {AUTHORITY}"
    for name in (CERTIFICATE, KEY, AUTHORITY):
        if problem := _file_problem(name, environment.get(name)):
            return f"RAY_USE_TLS=1, but {problem}"
    try:
        context = ssl.create_default_context(cafile=environment[AUTHORITY])
        context.load_cert_chain(environment[CERTIFICATE], environment[KEY])
    except ssl.SSLError as error:
        return f"RAY_USE_TLS=1, but {CERTIFICATE}, {KEY} and {AUTHORITY} do not fit together ({_reason(error)})"
    if speaks is None:
        return None
    if not speaks:
        return "RAY_USE_TLS=1, but the head there does not use TLS; unset it, or start the head with it"
    try:
        _shake_hands(context, host, port)
    except ssl.SSLCertVerificationError as error:
        return (
            f"RAY_USE_TLS=1, but the head's certificate is not accepted ({error.verify_message}); {AUTHORITY} must be "
            f"that of the cluster, and the head's certificate must name {host}"
        )
    except ssl.SSLError as error:
        return (
            f"RAY_USE_TLS=1, but the head does not accept this process's certificate ({_reason(error)}); "
            f"{CERTIFICATE} and {KEY} must be by the cluster's authority"
        )
    except OSError:
        return None  # anything else is said better by Ray
    return None


def _file_problem(name: str, path: str | None) -> str | None:
    if not path:
        return f"{name} is not set"
    try:
        with Path(path).open("rb"):
            return None
    except OSError as error:
        return f"{name} {path} cannot be read ({error.strerror})"


def _speaks_tls(host: str, port: int) -> bool | None:
    """Whether a handshake gets as far as a certificate, whoever signed it; None if there is no answer to tell."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _shake_hands(context, host, port, wait=0)
    except ssl.SSLError as error:
        # A server that only asks for our certificate speaks TLS; one that answers in plain text does not.
        return error.reason is not None and "ALERT" in error.reason
    except OSError:
        return None
    return True


def _shake_hands(context: ssl.SSLContext, host: str, port: int, wait: float = REFUSED_WITHIN) -> None:
    context.set_alpn_protocols(["h2"])  # gRPC ends a connection that does not ask for it
    with (
        socket.create_connection((host, port), timeout=ANSWER_WITHIN) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        if wait:
            secure.settimeout(wait)
            try:
                secure.recv(1)
            except TimeoutError:
                return  # nothing to say: it waits for us


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
