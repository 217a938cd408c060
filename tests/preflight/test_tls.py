"""A head with TLS and a process without, and the other way round: one line each, at once."""

import socket
import ssl
import threading
from contextlib import contextmanager

import pytest

from acr_ray.preflight.reach import check_reachable
from acr_ray.preflight.tls import tls_problem
from acr_ray.settings import UserError
from tests.fakes.certificates import issue, tls_environment

HOST = "127.0.0.1"


@contextmanager
def listening(environment=None, host=HOST):
    """The port of a server that asks for certificates as Ray's does, or, without an environment, of a plain one."""
    context = None
    if environment:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=environment["RAY_TLS_CA_CERT"])
        context.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2"])

    def answer(client):
        try:
            with client, context.wrap_socket(client, server_side=True) if context else client as secure:
                secure.settimeout(5)
                if context is None:
                    secure.sendall(b"\0\0\6\4\0\0\0\0\0\0\5\0\0@\0")  # HTTP/2 settings, as gRPC begins
                secure.recv(1)
        except OSError:
            pass

    def serve():
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server((host, 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return tls_environment(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return tls_environment(tmp_path_factory.mktemp("theirs"))


def test_both_with_or_both_without(ours):
    with listening(ours) as port:
        assert tls_problem(HOST, port, ours) is None
    with listening() as port:
        assert tls_problem(HOST, port, {}) is None
        assert tls_problem(HOST, port, {"RAY_USE_TLS": "0"}) is None


def test_one_of_the_two(ours):
    with listening(ours) as port:
        assert "the head uses TLS, this process does not; set RAY_USE_TLS=1" in tls_problem(HOST, port, {})
        with pytest.raises(UserError, match=f"RAY_ADDRESS {HOST}:{port}: the head uses TLS"):
            check_reachable(f"{HOST}:{port}", {})
    with listening() as port:
        assert "the head there does not use TLS" in tls_problem(HOST, port, ours)


def test_certificates_of_another_authority(ours, theirs):
    with listening(theirs) as port:
        assert "the head's certificate is not accepted (" in tls_problem(HOST, port, ours)
        ours_but_trusting = ours | {"RAY_TLS_CA_CERT": theirs["RAY_TLS_CA_CERT"]}
        assert "does not accept this process's certificate" in tls_problem(HOST, port, ours_but_trusting)


def test_a_certificate_for_another_address(tmp_path):
    environment = tls_environment(tmp_path)
    with listening(environment) as port:
        assert tls_problem("localhost", port, environment) is None
    with listening(environment, "127.0.0.2") as port:
        problem = tls_problem("127.0.0.2", port, environment)
    assert "IP address mismatch" in problem and problem.endswith("the head's certificate must name 127.0.0.2")


def test_files_that_are_missing_or_do_not_fit(ours, tmp_path):
    assert "RAY_TLS_CA_CERT is not set" in tls_problem(HOST, 9, {k: v for k, v in ours.items() if "CA" not in k})
    gone = ours | {"RAY_TLS_SERVER_KEY": str(tmp_path / "gone.key")}
    assert f"RAY_TLS_SERVER_KEY {tmp_path}/gone.key cannot be read (No such file" in tls_problem(HOST, 9, gone)
    issue(tmp_path, "other")
    mixed = ours | {"RAY_TLS_SERVER_KEY": str(tmp_path / "other.key")}
    assert "do not fit together" in tls_problem(HOST, 9, mixed)


def test_a_head_that_says_nothing_is_left_to_ray(ours, monkeypatch):
    monkeypatch.setattr("acr_ray.preflight.tls.ANSWER_WITHIN", 0.2)
    with socket.create_server((HOST, 0)) as server:
        for environment in ({}, ours):
            assert tls_problem(HOST, server.getsockname()[1], environment) is None
