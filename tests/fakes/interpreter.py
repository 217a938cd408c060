"""Triton kernels run on a CPU by Triton's interpreter, watched for what they touch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch

GUARD = 16384  # numbers before and behind what a kernel may touch


def run_interpreted(folder: Path, marks: str) -> None:
    """Run a folder's tests of kernels that have these marks, in a process of their own.

    At its import, and only then, Triton asks whether to interpret.
    """
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: it comes with torch's builds for CUDA")
    files = sorted(folder.glob("interpreted_*.py"))
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", marks, *map(str, files)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0 and " passed" in found.stdout, found.stdout[-6000:] + found.stderr[-2000:]
    assert "skipped" not in found.stdout


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers that are the same in each test."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def guarded(x: torch.Tensor) -> torch.Tensor:
    """The same images, channels-last, in the midst of NaNs: whatever reads them is seen."""
    whole = torch.full((x.numel() + 2 * GUARD,), float("nan"), dtype=x.dtype)
    return _channels_last(whole[GUARD : GUARD + x.numel()], x.shape).copy_(x)


def watched(function: Any, *given: Any) -> Any:
    """Call what launches a kernel; all that the kernel fills, and nothing around it, may be written."""
    with _watched_memory():
        return function(*given)


@contextmanager
def _watched_memory() -> Iterator[None]:
    made = []

    def empty(shape: Any, *, dtype: Any, device: Any, memory_format: Any = torch.contiguous_format) -> torch.Tensor:
        size = torch.Size(shape).numel()
        whole = torch.full((size + 2 * GUARD,), 7, dtype=dtype, device=device)
        made.append((whole, size))
        within = whole[GUARD : GUARD + size].fill_(float("nan") if dtype.is_floating_point else 32099)
        return _channels_last(within, shape) if memory_format == torch.channels_last else within.view(shape)

    with mock.patch.object(torch, "empty", empty):
        yield
    for whole, size in made:
        assert (whole[:GUARD] == 7).all() and (whole[GUARD + size :] == 7).all(), "written outside of the result"


def _channels_last(within: torch.Tensor, shape: Any) -> torch.Tensor:
    images, channels, *size = shape
    return within.view(images, *size, channels).permute(0, 3, 1, 2)


def check_planted(
    module: ModuleType, line: str, instead: str, check: Callable[[ModuleType], Any], folder: Path
) -> None:
    """A check of kernels sees a fault, see `planted`; without one, where ``line`` is empty, it sees none."""
    kernel = planted(module, line, instead, folder)
    with pytest.raises(AssertionError) if line else nullcontext():
        check(kernel)


def planted(module: ModuleType, line: str, instead: str, folder: Path) -> ModuleType:
    """A module of kernels with a fault: one of its lines is another."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    assert line in source, f"no {line!r} is there any more: plant this fault elsewhere"
    file = folder / "planted.py"
    file.write_text(source.replace(line, instead, 1) if line else source)
    specification = importlib.util.spec_from_file_location("planted", file)
    assert specification is not None and specification.loader is not None
    faulty = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(faulty)
    return faulty
