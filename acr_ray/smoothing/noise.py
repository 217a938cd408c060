"""Noisy copies of images from seeds, block by block: float noise as the field has it, and lattice noise.

*Float noise.* On CPU the draws are NumPy's PCG64 and ziggurat. torch's CPU generator keeps only 32 bits of a seed, so
among the hundreds of thousands of blocks of a run some would be equal, and its normal variates depend on the
processor's vector width. On CUDA the draws are torch's Philox, which keeps 64 bits; they may differ between kinds of
GPU.

*Lattice noise.* Whole numbers from a counter, the same on every machine, see `acr_ray.smoothing.lattice_law`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acr_ray.smoothing.compiled import compiler_problem
from acr_ray.smoothing.lattice import LatticeDraws
from acr_ray.smoothing.lattice_law import LatticeLaw
from acr_ray.smoothing.lattice_reference import stream_key
from acr_ray.smoothing.lattice_torch import key_words
from acr_ray.smoothing.plan import Phase

SAME = 2.0**-23  # numbers in [0, 1] closer than this are the same in float32, up to how they were computed
AHEAD = 2**18  # numbers drawn together on a CPU: each call of NumPy costs, and small images need few


class Noise(Protocol):
    """What the engine asks for noisy copies. They are valid until the next ones are asked for."""

    def placed(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] as the other methods take them."""

    def blocks(
        self, images: Tensor, names: Sequence[str], run_seed: int, phase: Phase, first: int, stop: int
    ) -> Iterator[Tensor]:
        """The noisy copies of the blocks ``first`` to ``stop - 1``, each ``(B * phase.block, C, H, W)``.

        In channels-last memory order, image by image; an image's rows depend on its name, the run's seed, the phase
        and the block alone.
        """

    def seeded(self, images: Tensor, seeds: Sequence[int], draws: int) -> Tensor:
        """``draws`` noisy copies of each image from its own seed, ``(B * draws, C, H, W)``."""


class FloatNoise:
    """N(0, sigma²) in float32.

    Args:
        sigma: in input units, > 0.
        device: ``"cpu"`` or a CUDA device.
    """

    def __init__(self, sigma: float, device: str = "cpu") -> None:
        self.sigma, self.device = sigma, device
        self._buffer: Tensor | None = None  # one block of noise: a new one each time would fault its pages in again

    def placed(self, images: Tensor) -> Tensor:
        return images.to(self.device)

    def blocks(
        self, images: Tensor, names: Sequence[str], run_seed: int, phase: Phase, first: int, stop: int
    ) -> Iterator[Tensor]:
        for block in range(first, stop):
            yield self.seeded(images, [phase.seed(run_seed, name, block) for name in names], phase.block)

    def seeded(self, images: Tensor, seeds: Sequence[int], draws: int) -> Tensor:
        _, channels, height, width = images.shape
        rows = (len(seeds), draws, height, width, channels)
        if self._buffer is None or self._buffer.shape != rows:
            self._buffer = torch.empty(rows, dtype=torch.float32, device=self.device)
        noise = standard_normal(seeds, draws, (channels, height, width), self.device, self._buffer)
        copies = noise.unflatten(0, (len(seeds), draws))
        torch.add(images[:, None], copies, alpha=self.sigma, out=copies)
        return noise


class Places(NamedTuple):
    """Parts of passes that images share; arrays ``(N,)``, N a multiple of the places of a pass.

    Attributes:
        image: position of each place's image.
        key: of its stream (`lattice_reference.stream_key`), uint64.
        first: index of its first draw within its phase.
        draws: consecutive draws of each place.
    """

    image: NDArray[np.int64]
    key: NDArray[np.uint64]
    first: NDArray[np.int64]
    draws: int = 1


class LatticeNoise:
    """N(0, sigma²) rounded to the images' grid, exactly; images that are not on it are rounded.

    A copy is a whole number m of steps a pixel, and the network sees the product of m and the step's nearest float32,
    rounded to ``dtype``.

    Args:
        law: of the noise, and with it the grid.
        device: ``"cpu"`` or a CUDA device.
        dtype: of the copies.
    """

    def __init__(self, law: LatticeLaw, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.law, self.device, self.dtype = law, device, dtype
        self._on_cpu = with_numpy(device)
        self._step = float(np.float32(1) / np.float32(law.levels))
        self._buffer: Tensor | None = None
        if self._on_cpu:
            self._draws = LatticeDraws(law)
        else:
            self._lattice = DeviceLattice(law, device)

    def placed(self, images: Tensor) -> Tensor:
        """Steps, int16 ``(B, H, W, C)``; halves go to the even number."""
        return grid_points(images.to(self.device), self.law.levels).permute(0, 2, 3, 1).contiguous()

    def blocks(
        self, images: Tensor, names: Sequence[str], run_seed: int, phase: Phase, first: int, stop: int
    ) -> Iterator[Tensor]:
        keys = [stream_key(run_seed, name, phase.name) for name in names]
        yield from self._from(images, keys, first * phase.block, phase.block, stop - first)

    def seeded(self, images: Tensor, seeds: Sequence[int], draws: int) -> Tensor:
        return next(self._from(images, seeds, 0, draws, 1))

    def passes(self, images: Tensor, places: Places, rows: int) -> Iterator[Tensor]:
        """Noisy copies that many images share passes with.

        Args:
            images: of `placed`.
            places: of all passes, one behind the other.
            rows: of a pass, a multiple of ``places.draws``.

        Yields:
            ``(rows, C, H, W)`` in channels-last memory order; a row depends on its own image, key and draw alone.
        """
        return (self._passes_on_host if self._on_cpu else self._passes_on_device)(images, places, rows // places.draws)

    def _passes_on_host(self, images: Tensor, places: Places, count: int) -> Iterator[Tensor]:
        flat, coordinates = images.flatten(1).numpy(), images[0].numel()
        together = count * max(1, AHEAD // (count * places.draws * coordinates))
        for at in range(0, len(places.image), together):
            now = slice(at, at + together)
            steps = self._draws.runs(places.key[now], places.first[now], places.draws, coordinates)
            steps += flat[places.image[now], None]
            for one in torch.from_numpy(steps).split(count):
                yield self._scaled(one, images)

    def _passes_on_device(self, images: Tensor, places: Places, count: int) -> Iterator[Tensor]:
        # Sent once, before the first pass: each copy to the device would be waited for.
        parts = (places.image, places.key & np.uint64(2**32 - 1), places.key >> np.uint64(32), places.first)
        plan = torch.from_numpy(np.stack([part.astype(np.int64) for part in parts], 1)).to(self.device)
        for one in plan.split(count):
            mine = images.index_select(0, one[:, 0])
            copies = self._lattice.copies(mine, one[:, 1:3], one[:, 3:], places.draws, self._step, self.dtype)
            yield copies.flatten(0, 1).permute(0, 3, 1, 2)

    def _from(self, images: Tensor, keys: Sequence[int], first: int, draws: int, blocks: int) -> Iterator[Tensor]:
        if self._on_cpu:
            return self._on_host(images, keys, first, draws, blocks)
        return self._on_device(images, keys, first, draws, blocks)

    def _on_host(self, images: Tensor, keys: Sequence[int], first: int, draws: int, blocks: int) -> Iterator[Tensor]:
        count, coordinates = len(keys), images[0].numel()
        flat = images.reshape(count, 1, coordinates).numpy()
        together = max(1, min(blocks, AHEAD // (count * draws * coordinates)))
        for at in range(0, blocks, together):
            now = min(together, blocks - at)
            steps = self._draws(keys, first + at * draws, now * draws, coordinates)
            steps += flat
            for block in range(now):
                yield self._scaled(torch.from_numpy(steps)[:, block * draws : (block + 1) * draws], images)

    def _scaled(self, steps: Tensor, images: Tensor) -> Tensor:
        """Copies, of steps ``(B, draws, coordinates)``, in memory that is used again."""
        shape = (*steps.shape[:2], *images.shape[1:])
        if self._buffer is None or self._buffer.shape != shape:
            self._buffer = torch.empty(shape, dtype=torch.float32)
        self._buffer.copy_(steps.reshape(shape)).mul_(self._step)
        return self._buffer.to(self.dtype).flatten(0, 1).permute(0, 3, 1, 2)

    def _on_device(self, images: Tensor, keys: Sequence[int], first: int, draws: int, blocks: int) -> Iterator[Tensor]:
        words = key_words(list(keys), self.device)
        for at in range(blocks):
            # Filled on the device: a number sent there would be waited for.
            begin = torch.full((), first + at * draws, dtype=torch.int64, device=self.device)
            copies = self._lattice.copies(images, words, begin, draws, self._step, self.dtype)
            yield copies.flatten(0, 1).permute(0, 3, 1, 2)


def with_numpy(device: str) -> bool:
    """Whether lattice noise for this device is drawn by NumPy, not by torch on the device."""
    return torch.device(device).type == "cpu"


class DeviceLattice:
    """Lattice noise on a GPU: one kernel where there is a compiler, torch's operations elsewhere; the same numbers.

    Args:
        law: of the noise.
        device: a CUDA device.
    """

    def __init__(self, law: LatticeLaw, device: str) -> None:
        # Triton, in which the kernel is written, is there only where CUDA is.
        name = "lattice_torch" if compiler_problem(device) else "lattice_kernel"
        how = importlib.import_module(f"acr_ray.smoothing.{name}")
        table = how.DeviceTable.of(law, device)
        self.copies: Callable[..., Tensor] = partial(how.copies, table)
        self.steps: Callable[..., Tensor] = partial(how.steps, table)


class LatticeSteps:
    """Whole numbers K of a law on a device, without images.

    Args:
        law: of the noise.
        device: ``"cpu"`` or a CUDA device.
    """

    def __init__(self, law: LatticeLaw, device: str) -> None:
        self._device = device
        self._draws = LatticeDraws(law) if with_numpy(device) else None
        self._lattice = None if self._draws is not None else DeviceLattice(law, device)

    def __call__(self, keys: Sequence[int], draws: int, coordinates: int) -> Tensor:
        """The first ``draws`` draws of each key, int16 ``(len(keys), draws, coordinates)``."""
        if self._draws is not None:
            return torch.from_numpy(self._draws(keys, 0, draws, coordinates))
        first = torch.zeros((), dtype=torch.int64, device=self._device)
        assert self._lattice is not None  # of a GPU
        return self._lattice.steps(key_words(list(keys), self._device), first, draws, coordinates)


def grid_points(images: Tensor, levels: int) -> Tensor:
    """Images in [0, 1] as steps of ``1 / levels``, int16, rounded; halves to the even number."""
    return torch.round(images.float() * levels).to(torch.int16)


def off_grid(images: Tensor, levels: int) -> Tensor:
    """How far each image is rounded: l2 distances in input units, float64 ``(B,)``; 0 where float32 cannot tell.

    Args:
        images: float32 ``(B, C, H, W)`` in [0, 1].
        levels: steps of the grid in a unit.
    """
    # The distances with NumPy: see `pixels.checked_image`.
    x, steps = (values.cpu().numpy().astype(np.float64) for values in (images, grid_points(images, levels)))
    away = x - steps / levels
    return torch.from_numpy(np.sqrt((np.where(np.abs(away) > SAME, away, 0.0) ** 2).reshape(len(x), -1).sum(1)))


def standard_normal(
    seeds: Sequence[int], draws: int, shape: tuple[int, int, int], device: str = "cpu", out: Tensor | None = None
) -> Tensor:
    """Independent N(0, 1) noise, one stream of draws for each seed.

    Args:
        seeds: one for each image, in [0, 2**63).
        draws: noise samples for each seed, >= 1.
        shape: ``(C, H, W)`` of an image.
        device: ``"cpu"`` or a CUDA device.
        out: float32 ``(len(seeds), draws, H, W, C)`` on that device to draw into, contiguous; None: new memory.

    Returns:
        float32 ``(len(seeds) * draws, C, H, W)`` in channels-last memory order, seed by seed. A seed's rows depend
        on that seed, ``draws`` and ``shape`` alone.
    """
    channels, height, width = shape
    rows = (len(seeds), draws, height, width, channels)
    noise = torch.empty(rows, dtype=torch.float32, device=device) if out is None else out
    if noise.device.type == "cpu":
        for row, seed in zip(noise.numpy(), seeds, strict=True):
            np.random.Generator(np.random.PCG64(int(seed))).standard_normal(dtype=np.float32, out=row)
    else:
        generator = torch.Generator(device)
        for row, seed in zip(noise, seeds, strict=True):
            row.normal_(generator=generator.manual_seed(int(seed)))
    return noise.flatten(0, 1).permute(0, 3, 1, 2)
