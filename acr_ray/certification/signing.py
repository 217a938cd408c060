"""Ed25519 signatures (RFC 8032) of a bundle's manifest, by the library `cryptography`."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from acr_ray.settings.errors import UserError

MOST_BYTES = 100_000  # of a key's file
_CONTEXT = b"acr-ray bundle/1\n"  # so that a signature for this is one for nothing else


def read_private_key(path: str) -> Ed25519PrivateKey:
    """Read a private key (PEM, without a password). Raises UserError naming the file and how to make one."""
    try:
        key = load_pem_private_key(_content(path, "--sign"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"--sign {path}: no private key in PEM without a password ({_short(error)}); {_MAKE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"--sign {path}: no Ed25519 key; {_MAKE}")
    return key


def read_public_key(path: str) -> bytes:
    """Read a public key (PEM). Raises UserError naming the file."""
    try:
        key = load_pem_public_key(_content(path, "--key"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"--key {path}: no public key in PEM ({_short(error)})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"--key {path}: no Ed25519 key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(key: Ed25519PrivateKey, manifest: bytes) -> dict[str, str]:
    """Return what goes into the bundle."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signed = key.sign(_CONTEXT + manifest)
    return {
        "algorithm": "ed25519",
        "public_key": base64.b64encode(public).decode(),
        "signature": base64.b64encode(signed).decode(),
    }


def signer(signature: dict[str, str], manifest: bytes, where: str) -> bytes:
    """Return the public key that signed a manifest. Raises UserError if none did."""
    try:
        public = base64.b64decode(signature["public_key"], validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(
            base64.b64decode(signature["signature"], validate=True), _CONTEXT + manifest
        )
    except (InvalidSignature, ValueError) as error:
        raise UserError(f"{where}: its signature is not one of this content ({_short(error)})") from None
    return public


def fingerprint(public_key: bytes) -> str:
    """Return a public key in short: ``ed25519:`` and 16 hexadecimal digits of its SHA-256."""
    return f"ed25519:{hashlib.sha256(public_key).hexdigest()[:16]}"


_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


def _content(path: str, option: str) -> bytes:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error.strerror or error})") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
