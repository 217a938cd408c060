"""Seeds from names: every random choice has a seed of its own, so order and place of work don't matter."""

from __future__ import annotations

import hashlib


def derive_seed(run_seed: int, *parts: str | int) -> int:
    """Return a 63-bit seed for one purpose, e.g. ``derive_seed(0, "noise", "digits/0012", "estimate", 3)``.

    The same arguments give the same seed on every machine and version of Python; arguments that differ in
    any part give unrelated seeds (BLAKE2b of an unambiguous encoding).

    Args:
        run_seed: the seed that the user chose.
        parts: what the seed is for; text and whole numbers.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (run_seed, *parts):
        encoded = repr(part if isinstance(part, str) else int(part)).encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return int.from_bytes(digest.digest(), "big") >> 1
