"""A network behind ``torch.compile`` whose answers do not depend on which batches it has met."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acr_ray.settings import UserError

MOST_GRAPHS = 32  # batch sizes of one network; a network that asks for more changes at each call


class Compiled(nn.Module):
    """Compiles a network for a few batch sizes, each by itself, and pads other batches to them.

    Left alone, ``torch.compile`` makes a kernel for the first size that it meets, and for the second one for all
    sizes, with other last bits: answers would depend on what was asked before, and actors of one run could disagree.

    Args:
        network: in evaluation mode, on ``device``, without hooks that change Python values at each call.
        device: ``"cpu"`` or a CUDA device; there kernels are launched together as a CUDA graph.
        rows: batch sizes that are used often: they are never padded.
        graphs: whether a GPU's kernels are launched together; the answers are the same without.

    Raises:
        UserError: there is no compiler here, or (when called) the network cannot be compiled.
    """

    def __init__(self, network: nn.Module, device: str = "cpu", rows: Sequence[int] = (), graphs: bool = True) -> None:
        super().__init__()
        if problem := compiler_problem(device):
            raise UserError(problem)
        self.network, self.rows = network, tuple(rows)
        mode = "reduce-overhead" if graphs and torch.device(device).type == "cuda" else "default"
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_GRAPHS)
        # Rather than going on without compiling, in silence and with other last bits.
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        self._compiled = torch.compile(network, mode=mode, dynamic=False)

    def forward(self, x: Tensor) -> Tensor:
        given, size = len(x), padded_size(len(x), self.rows)
        if size != given:
            x = torch.cat([x, x[-1:].expand(size - given, *x.shape[1:])])
        # The order of memory is part of what a kernel is compiled for.
        x = x.contiguous(memory_format=torch.channels_last)
        try:
            return self._compiled(x)[:given]
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise UserError(
                "--compile: this network is compiled anew at each call (a hook or a forward that counts); "
                "leave --compile out"
            ) from error


def padded_size(rows: int, exact: Sequence[int] = ()) -> int:
    """The batch size that a batch is padded to: itself if it is among ``exact``, else the next 2 or 3 times 2^k."""
    if rows in exact:
        return rows
    power = 1 << (max(rows, 1) - 1).bit_length()
    return power * 3 // 4 if power >= 4 and rows <= power * 3 // 4 else power


def compiler_problem(device: str = "cpu") -> str | None:
    """What ``torch.compile`` lacks on this machine, in one line; None if it has all that it needs."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++", "gcc", "clang", "cc")):
        return "--compile: this machine has no C++ compiler (g++ or clang++); install one, or leave --compile out"
    if torch.device(device).type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return "--compile: torch's compiler for GPUs needs the package triton; install it, or leave --compile out"
    return None
