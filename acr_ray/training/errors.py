"""How training ends early."""

from __future__ import annotations


class TrainingStopped(RuntimeError):
    """Training cannot continue, and would not if it were tried again; the text says why and what to do."""
