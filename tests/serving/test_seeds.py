"""The secret, and what noise depends on."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from acr_ray.serving.seeds import SECRET_VARIABLE, Secret, read_secret
from acr_ray.settings import UserError
from tests.fakes.jobs import ROOT

IMAGE = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)


def test_the_key_depends_on_the_secret_the_question_and_each_pixel():
    secret, other_image = Secret(b"one secret of tests"), IMAGE.copy()
    other_image[0, 3, 4] = np.nextafter(other_image[0, 3, 4], np.float32(1))
    keys = [
        secret.key(["model", "0.25", "certify"], IMAGE),
        Secret(b"another secret of tests").key(["model", "0.25", "certify"], IMAGE),
        secret.key(["model", "0.25", "predict"], IMAGE),
        secret.key(["model", "0.5", "certify"], IMAGE),
        secret.key(["model", "0.25certify", ""], IMAGE),
        secret.key(["model", "0.25", "certify"], other_image),
        secret.key(["model", "0.25", "certify"], IMAGE.reshape(1, 4, 16)),
        secret.key(["model", "0.25", "certify"], IMAGE, b"fresh"),
    ]
    assert len(set(keys)) == len(keys) and all(len(key) == 64 for key in keys)
    assert keys[0] == secret.key(["model", "0.25", "certify"], np.asfortranarray(IMAGE))


def test_the_file_is_made_for_its_owner_alone_and_read_again(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    path = tmp_path / "new" / "secret"
    first = read_secret(str(path)).key([], IMAGE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [p.name for p in path.parent.iterdir()] == ["secret"]
    assert read_secret(str(path)).key([], IMAGE) == first != read_secret(str(tmp_path / "other")).key([], IMAGE)
    assert repr(read_secret(str(path))) == "Secret(…)"


def test_replicas_that_start_together_read_the_same(tmp_path):
    code = "import sys; from acr_ray.serving.seeds import _read_or_make; from pathlib import Path; "
    code += "print(_read_or_make(Path(sys.argv[1])).hex())"
    command = [sys.executable, "-c", code, str(tmp_path / "secret")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_a_secret_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    path = tmp_path / "secret"
    path.write_text("x" * 32)
    os.chmod(path, 0o644)
    with pytest.raises(UserError, match="others may read it"):
        read_secret(str(path))
    os.chmod(path, 0o600)
    path.write_text(" short \n")
    with pytest.raises(UserError, match="5 bytes"):
        read_secret(str(path))
    monkeypatch.setenv(SECRET_VARIABLE, "short")
    with pytest.raises(UserError, match=SECRET_VARIABLE):
        read_secret(None)
    monkeypatch.setenv(SECRET_VARIABLE, "x" * 16)
    assert read_secret(str(path)).key([], IMAGE) == Secret(b"x" * 16).key([], IMAGE)
