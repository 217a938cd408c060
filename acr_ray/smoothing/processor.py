"""What this machine's processor is. Linux says it; elsewhere little is known."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

PLACE = Path("/proc/cpuinfo")


def processor_name() -> str:
    """The processor as its maker calls it; its kind (``x86_64``) where that is not said."""
    return _said("model name") or platform.processor() or platform.machine()


def processor_flags() -> frozenset[str]:
    """What its instructions can do, in Linux's words: ``avx512f``, ``avx512_vnni``, ``amx_int8``, …"""
    return frozenset(_said("flags").split())


@lru_cache
def _said(name: str) -> str:
    """What the first core's entry says of something; "" if it says nothing."""
    try:
        lines = PLACE.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
