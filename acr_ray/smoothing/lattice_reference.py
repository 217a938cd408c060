"""Lattice noise drawn slowly, in plain Python integers, as docs/noise.md specifies it. The fast paths must equal it."""

from __future__ import annotations

import hashlib
from bisect import bisect_right

from acr_ray.smoothing.lattice_law import LatticeLaw

WORD = 2**32
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
FURTHER = 2**63  # from this counter on bits are the further ones


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): four words of 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = divmod(MULTIPLIERS[0] * c0, WORD)
        high1, low1 = divmod(MULTIPLIERS[1] * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) % WORD, (k1 + WEYL[1]) % WORD
    return c0, c1, c2, c3


def stream_key(run_seed: int, image: str, phase: str) -> int:
    """The key of an image's noise in a phase: the first 8 bytes of a SHA-256, the first byte lowest; in [0, 2**64)."""
    text = f"lattice/1\n{run_seed}\n{phase}\n{image}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def number(law: LatticeLaw, key: int, draw: int, coordinate: int, coordinates: int) -> int:
    """One number of the noise, in steps.

    Args:
        key: of `stream_key`.
        draw: index within the phase, below 2**63 / coordinates: a block's number times its draws, plus the place in it.
        coordinate: index in the image in the order (H, W, C), in [0, coordinates).
        coordinates: numbers in an image, below 2**32.
    """
    group, lane = divmod(coordinate, 8)
    word = _words(key, draw * -(-coordinates // 8) + group)[lane // 2]
    first = word // 2**16 if lane % 2 else word % 2**16
    pair, place = divmod(coordinate, 2)
    more = _words(key, FURTHER + draw * -(-coordinates // 2) + pair)
    further = more[2 * place] + WORD * more[2 * place + 1]
    return bisect_right(law.thresholds(), first * 2**64 + further) - law.reach


def _words(key: int, counter: int) -> tuple[int, int, int, int]:
    return philox4x32((counter % WORD, counter // WORD, 0, 0), (key % WORD, key // WORD))
