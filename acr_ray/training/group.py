"""The workers of one run: what they share, and how."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.modules.batchnorm import _NormBase

from acr_ray.settings import UserError

# torch 2.13 gave it another name, and warns of the old one.
_DDP_OPTIONS = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_FORWARD_SYNC = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers"


class Group:
    """This process among the workers; alone where torch.distributed is not initialised."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        alone = not dist.is_initialized()
        self.rank, self.world = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())

    def wrap(self, module: nn.Module, *, compression: str = "none", sync_batch_norm: bool = False) -> nn.Module:
        """The module with gradients averaged over the workers (DDP); itself where there is only one.

        Args:
            compression: ``float16``: gradients travel in half precision, averaged in it; else ``none``.
            sync_batch_norm: batch statistics of all workers' rows together; torch has it for GPUs only.

        Raises:
            UserError: batch norm is to be synchronised on CPUs.
        """
        if self.world == 1:
            return module
        on_gpu = self.device.startswith("cuda")
        if sync_batch_norm:
            if not on_gpu:
                raise UserError("training.sync_batch_norm = True: needs GPUs (--gpus-per-worker 1), or one worker")
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        # DDP rearranges its buckets after the first step, and gloo's order of summation follows a value's place in
        # its bucket: with three or more workers a resumed run would differ in the last bit. Asking for a search of
        # unused parameters, cheap on a CPU, keeps the first arrangement.
        options: dict[str, Any] = {_FORWARD_SYNC: False}  # average_buffers does it, before anything reads them
        wrapped = nn.parallel.DistributedDataParallel(
            module,
            device_ids=[torch.device(self.device)] if on_gpu else None,
            **options,
            find_unused_parameters=not on_gpu and self.world > 2,
            gradient_as_bucket_view=on_gpu,  # spares a copy of all gradients
        )
        if compression == "float16":
            wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
        return wrapped

    def no_gradient_sync(self, wrapped: nn.Module) -> AbstractContextManager:
        """Leave the gradients of passes in here on their worker: all but the last part of an accumulated step.

        Args:
            wrapped: what `wrap` gave.
        """
        return nullcontext() if self.world == 1 else cast(nn.parallel.DistributedDataParallel, wrapped).no_sync()

    def sum(self, values: NDArray) -> NDArray:
        """The sum of an array over the workers, on all of them."""
        if self.world == 1:
            return values
        total = torch.as_tensor(np.ascontiguousarray(values), device=self.device)
        dist.all_reduce(total)
        return total.cpu().numpy()

    def gather(self, values: NDArray) -> NDArray:
        """``(world, …)``: every worker's array, on all of them; all arrays have the same shape and type."""
        every = np.zeros((self.world, *values.shape), dtype=values.dtype)
        every[self.rank] = values
        return self.sum(every)

    def average_buffers(self, module: nn.Module) -> None:
        """Give all workers the mean of their running statistics (batch norm's), and of nothing else.

        Without it every worker attacks, estimates p_A and checkpoints a slightly different network, and a run that
        is resumed, where all start from rank 0's file, goes another way than one that was never stopped. Constants,
        such as the normalisation layer's mean and std, must not take part: a sum over 3, 5, 6, 7 or 8 workers,
        divided by their number, is not always the value that all of them had.
        """
        if self.world == 1:
            return
        buffers = running_statistics(module)
        if not buffers:
            return
        flat = torch.cat([b.flatten() for b in buffers])
        dist.all_reduce(flat)
        flat /= self.world
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))


def running_statistics(module: nn.Module) -> list[torch.Tensor]:
    """The floating point buffers that a layer updates while it trains: running means and variances."""
    layers = [layer for layer in module.modules() if isinstance(layer, _NormBase)]
    found = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    return [buffer for buffer in found if buffer is not None]


def shared_text(group: Group, text: str, most: int = 1000) -> str:
    """The first worker's text that is not empty, on every worker.

    Args:
        most: bytes of UTF-8 that are passed on.
    """
    row = np.zeros(most, dtype=np.int64)
    encoded = text.encode()[:most]
    row[: len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)
    for found in group.gather(row):
        if found.any():
            return bytes(found[found > 0].astype(np.uint8)).decode(errors="ignore")
    return ""
