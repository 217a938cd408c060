"""Batches by plan: the caller says which items with which seeds; this reads them, in order, ahead of time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from acr_ray.data.device_decoding import DeviceDecoder
from acr_ray.data.image_set import ImageSet, to_unit_range
from acr_ray.settings import UserError

DEVICES = "/dev/nvidia"  # how the names of GPUs begin
Entry = tuple[np.ndarray, np.ndarray | None]


def forget_devices(worker: int) -> None:
    """Close what a loader process has inherited of GPUs; it uses none.

    While a copy of the training process's handles is open, the driver keeps that process's memory on the GPU, even
    after it was killed.

    Args:
        worker: its number, as the loader gives it.
    """
    here = Path("/proc/self/fd")
    for handle in list(here.iterdir()) if here.is_dir() else ():
        # The listing's own handle is closed by now.
        with contextlib.suppress(OSError):
            if os.readlink(handle).startswith(DEVICES):
                os.close(int(handle.name))


class _Reader(Dataset):
    """Reads whole batches; in a loader process an error travels home as a value, for the loader would bury it."""

    def __init__(self, images: ImageSet, decoder: DeviceDecoder | None = None) -> None:
        self.images, self.decoder = images, decoder

    def __getitem__(self, entry: Entry) -> tuple[Any, torch.Tensor] | UserError:
        items, view_seeds = entry
        try:
            if self.decoder is not None:
                labels = torch.from_numpy(self.images.labels[np.asarray(items)])
                return (self.decoder.read(items), items, view_seeds), labels
            return self.images.pixels(items, view_seeds), torch.from_numpy(self.images.labels[np.asarray(items)])
        except UserError as error:
            return error


def batches(
    images: ImageSet,
    plan: Iterable[Entry],
    loader_workers: int = 0,
    pin_memory: bool = False,
    decoder: DeviceDecoder | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(x, labels) of each entry of the plan, in its order: float32 (B, C, H, W) in [0, 1] and int64 (B,), on the CPU.

    Args:
        images: what to read.
        plan: (items, view_seeds or None), a batch each.
        loader_workers: processes that read ahead, two batches each; 0: this one. The same results bit for bit. Sets
            in memory are read here in any case.
        pin_memory: page-locked memory, for copies to a GPU that overlap with work; without a GPU it does nothing.
        decoder: of these images: x is decoded by it, and lies on its device.

    Raises:
        UserError: a file is missing or broken; names it.
    """
    reader = _Reader(images, decoder)
    pin_memory = pin_memory and torch.cuda.is_available()
    if loader_workers == 0 or images.in_memory:
        found: Iterable = map(reader.__getitem__, plan)
    else:
        # A generator of its own: the loader would draw its base seed from torch's global one and move it on.
        found = DataLoader(
            reader,
            batch_size=None,
            sampler=plan,
            num_workers=loader_workers,
            generator=torch.Generator(),
            worker_init_fn=forget_devices,
        )
    for batch in found:
        if isinstance(batch, UserError):
            raise batch
        pixels, labels = batch
        if decoder is not None:
            yield decoder.views(*pixels).float().div_(images.peak), labels
            continue
        # Scaled here: bytes are a quarter of what would cross between processes otherwise.
        x = to_unit_range(pixels, images.peak, pin_memory)
        yield x, labels.pin_memory() if pin_memory else labels
