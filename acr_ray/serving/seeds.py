"""Where a request's noise comes from: a secret of the server, and the image itself.

A client cannot compute the key, so it cannot search for an image's lucky seeds, nor see the noise. What is left to
it: sending another image, which is another question, and asking for fresh noise, which the answer says.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acr_ray.settings import UserError

SECRET_VARIABLE = "ACR_RAY_SERVE_SECRET"
LEAST_BYTES = 16


class Secret:
    """The server's secret. Never printed: its ``repr`` says nothing."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(…)"

    def key(self, question: Sequence[str], pixels: NDArray[np.float32], fresh: bytes = b"") -> str:
        """Return the name of the noise of an image: HMAC-SHA-256, as 64 hexadecimal digits.

        Args:
            question: what is asked, without its budget: the model's hash, sigma, and what for. The budget is left
                out on purpose: another ``max_draws`` must not be another try.
            pixels: ``(C, H, W)``, as the network sees them.
            fresh: random bytes, if the client asked for noise of its own.
        """
        content = np.ascontiguousarray(pixels, dtype="<f4")
        parts = ["acr-ray/serve/1", *question, "x".join(map(str, content.shape))]
        found = hmac.new(self._value, digestmod=hashlib.sha256)
        for part in (*(text.encode() for text in parts), content.tobytes(), fresh):
            found.update(len(part).to_bytes(8, "big") + part)
        return found.hexdigest()


def read_secret(path: str | None) -> Secret:
    """Read the secret: of the environment's ``ACR_RAY_SERVE_SECRET``, else of a file, which is made if it is absent.

    Args:
        path: of the file; None: nobody has to get the same answer from another process, so a new one.

    Raises:
        UserError: the file cannot be read or made, others may read it, or it is too short to be a secret.
    """
    if text := os.environ.get(SECRET_VARIABLE):
        return _checked(text.encode(), SECRET_VARIABLE)
    if path is None:
        return Secret(secrets.token_bytes(32))
    return Secret(_read_or_make(Path(path).expanduser()))


def _read_or_make(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, and the first one wins: replicas that start together must read the same.
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
            try:
                os.link(aside, path)
            except FileExistsError:
                pass
            finally:
                aside.unlink()
        return read_private(path, "--secret-file")
    except OSError as error:
        raise UserError(f"--secret-file {path}: cannot be read or made ({error})") from None


def read_private(path: Path, option: str) -> bytes:
    """Read a file that only its owner may read, without white space around.

    Raises:
        UserError: others may read it, it cannot be read, or holds fewer than 16 bytes.
    """
    try:
        if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
            raise UserError(f"{option} {path}: others may read it; chmod 600 {path}")
        return _checked(path.read_bytes(), f"{option} {path}")._value
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error})") from None


def _checked(content: bytes, source: str) -> Secret:
    if len(content.strip()) < LEAST_BYTES:
        raise UserError(f"{source}: holds {len(content.strip())} bytes; must be at least {LEAST_BYTES}")
    return Secret(content.strip())
