"""A cluster that can't be joined: one line each, soon, and no traceback."""

import socket
import subprocess
import sys
import threading
from concurrent import futures
from contextlib import suppress

import grpc
import pytest

from acr_ray.preflight import reach, tls
from acr_ray.preflight.reach import check_reachable, explained, token_problem
from acr_ray.settings import UserError
from tests.fakes.jobs import ROOT, run, start

MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    "This process on node 10.0.0.2 was started with:\n    Ray: 2.59.0\n    Python: 3.12.1\n"
)


def test_an_address_is_checked_before_it_is_used():
    for address, said in (
        ("http://127.0.0.1:8265", "dashboard"),
        ("head", "HOST:PORT"),
        ("head:70000", "HOST:PORT"),
        ("127.0.0.1:9", "no Ray head can be reached"),
        ("no-such-host.invalid:6379", "no Ray head can be reached"),
    ):
        with pytest.raises(UserError, match=said) as found:
            check_reachable(address, {})
        assert f"RAY_ADDRESS {address}" in str(found.value)


class Stranger:
    """Takes connections on a port of its own, and answers each with these bytes (None: never, and keeps it open)."""

    def __init__(self, answer):
        self.socket, self.held, self.answer = socket.create_server(("127.0.0.1", 0)), [], answer
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.held.append(peer)
            if self.answer is not None:
                with suppress(OSError):  # who asked has gone
                    peer.sendall(self.answer)
                    peer.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "answer", [None, b"", b"SSH-2.0-OpenSSH_9.2p1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR wrong\r\n"]
)
def test_what_listens_there_and_is_no_head_is_said_soon(answer, monkeypatch):
    """It was waited for without an end."""
    monkeypatch.setattr(reach, "SECONDS", 0.5)
    monkeypatch.setattr(tls, "ANSWER_WITHIN", 0.5)
    stranger = Stranger(answer)
    try:
        with pytest.raises(UserError, match="something listens there, but it does not answer as a Ray head"):
            check_reachable(stranger.address, {})
    finally:
        stranger.socket.close()


def test_another_grpc_server_is_no_head_either():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(UserError, match="does not answer as a Ray head"):
            check_reachable(f"127.0.0.1:{port}", {})
    finally:
        server.stop(None)


def test_one_that_greets_and_then_says_nothing_is_not_waited_for(monkeypatch):
    for module, limit in ((reach, "SECONDS"), (reach, "ANSWER"), (tls, "ANSWER_WITHIN")):
        monkeypatch.setattr(module, limit, 0.5)
    stranger = Stranger(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    try:
        with pytest.raises(UserError, match="does not answer as a Ray head"):
            check_reachable(stranger.address, {})
    finally:
        stranger.socket.close()


def test_a_token_that_is_asked_for_must_be_there(tmp_path):
    assert token_problem({}) is None
    assert token_problem({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a"}) is None
    named = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    assert "cannot be read (No such file" in token_problem(named)
    (tmp_path / "token").write_text("\n")
    assert "is empty" in token_problem(named)
    (tmp_path / "token").write_text("abc")
    assert token_problem(named) is None
    assert ".ray/auth_token" in token_problem({"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)})


def test_what_ray_says_of_versions_becomes_a_line_with_both():
    text = str(explained("10.0.0.1:6379", RuntimeError(MISMATCH)))
    assert "the cluster has Ray 2.60.0 and Python 3.11.7, this process Ray 2.59.0 and Python 3.12.1" in text
    assert "\n" not in text and "ray job submit" in text
    assert "can be joined there (odd)" in str(explained("10.0.0.1:6379", ConnectionError("odd")))


@pytest.fixture(params=["wrong", "missing", "none"])
def refused(request, head, tmp_path):
    environment = dict(head.environment)
    if request.param == "wrong":
        (tmp_path / "token").write_text("ab" * 32)
        environment["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
    elif request.param == "missing":
        environment["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "absent")
    else:
        environment = {k: v for k, v in environment.items() if not k.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
    return type("Head", (), {"environment": environment})


@pytest.mark.ray
def test_a_token_that_is_refused_ends_a_job_in_a_line(refused, tmp_path):
    out, err = run("train", "digits-gaussian", "--out", tmp_path / "t", "--no-tracking", head=refused, code=2)
    assert err.count("\n") == 1 and "token" in err and err.startswith("error: RAY_ADDRESS")


@pytest.mark.ray
def test_a_head_of_another_version_ends_a_job_in_a_line(head, tmp_path):
    code = (
        "import ray; ray.__version__ = '2.59.0'; from jobs import train; from acr_ray.cli.exits import run_command; "
        f"run_command(train.main, ['digits-gaussian', '--out', {str(tmp_path / 't')!r}, '--no-tracking'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=head.environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "version mismatch: the cluster has Ray" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.ray
def test_a_head_that_is_not_there_ends_a_job_in_a_line(tmp_path):
    away = type("Head", (), {"environment": {"RAY_ADDRESS": "127.0.0.1:9", "PATH": ""}})
    process = start("train", "digits-gaussian", "--out", tmp_path / "t", "--no-tracking", head=away)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err.count("\n") == 1 and "no Ray head can be reached there" in err
