"""The actor that draws: a model, noise from seeds, and class counts back."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from acr_ray.certification.image_cache import WITH_SAMPLER, Kept, most_kept
from acr_ray.certification.machine import machine_of
from acr_ray.certification.pool import Machine, SampleRequest, SampleResult
from acr_ray.models import ModelCard, load_state
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.compiled import compiler_problem
from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine
from acr_ray.smoothing.int8_network import int8_problem
from acr_ray.smoothing.int8_parameters import Int8Parameters
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.run_noise import levels_of
from acr_ray.smoothing.shared import Asked, SharedPasses
from acr_ray.storage.node_checks import shared_memory_problem
from acr_ray.telemetry.logs import logger


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device's or the host's memory is full."""
    texts = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


@dataclass(frozen=True)
class Arithmetic:
    """How noise and network are computed; see `smoothing.arithmetic.prepare` and `smoothing.engine`."""

    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False
    rows: tuple[int, ...] = ()
    levels: int | None = None  # of lattice noise; None: float noise
    pass_rows: int | None = None  # of every pass, shared by images; None: a pass is a block of a work item's images
    int8: bytes | None = None  # the network's `Int8Parameters`, for int8

    @classmethod
    def of(cls, settings: CertifySettings, int8: bytes | None = None) -> Arithmetic:
        """Return the arithmetic that a run's settings ask for, with its int8 network if it has one."""
        s, rows = settings, (settings.rows_of_a_pass,)
        return cls(s.device, s.dtype, s.compile, rows, levels_of(s), s.pass_rows, int8)

    def problem(self) -> str | None:
        """Return what this process lacks for it, in one line; None if it can be computed here."""
        if self.device != "cpu" and not torch.cuda.is_available():
            return (
                f"--gpus-per-actor: torch {torch.__version__} finds no GPU that it can use on {socket.gethostname()}; "
                "see nvidia-smi there (the driver's version, the container's GPUs), or draw on CPUs"
            )
        if self.dtype == "int8" and (problem := int8_problem()):
            return problem
        return compiler_problem(self.device) if self.compiled else None


class Sampler:
    """Holds the model and draws. Plain Python: the coordinator makes it a Ray actor.

    Args:
        card: the model's card.
        state: its weights, as safetensors bytes; or the model itself, where no name can build it (the user's own
            process has made it).
        sigma: noise.
        seed: of the run.
        arithmetic: device, precision.
        run: name of the run, for logs.
    """

    def __init__(
        self,
        card: ModelCard,
        state: bytes | nn.Module,
        sigma: float,
        seed: int,
        arithmetic: Arithmetic,
        run: str = "",
    ) -> None:
        # One thread: with another number the last bits of a logit could differ between actors.
        torch.set_num_threads(1)
        if isinstance(state, bytes):
            model = card.build()
            load_state(model, state, "the model of this run")
        else:
            model = state
        self._model, self._classes, self._arithmetic, self._sigma = model, card.num_classes, arithmetic, sigma
        self._seed, self._shape, self._run = seed, tuple(card.shape), run
        self._kept: Kept[str, torch.Tensor] = Kept(most_kept(WITH_SAMPLER, math.prod(self._shape)))

    @cached_property
    def _engine(self) -> SamplingEngine:
        # Not made with the actor: what goes wrong in here is an answer, a failing constructor a dead actor.
        if problem := shared_memory_problem() or self._arithmetic.problem():
            raise UserError(problem)
        how = self._arithmetic
        int8 = None if how.int8 is None else Int8Parameters.from_bytes(how.int8, "the int8 network of this run")
        ready = prepare(
            self._model, device=how.device, dtype=how.dtype, compiled=how.compiled, rows=how.rows, int8=int8
        )
        logger(run=self._run).info("sampler at work on %s", how.device)
        return SamplingEngine(ready, self._classes, self._sigma, how.device, how.levels)

    def pid(self) -> int:
        return os.getpid()

    def machine(self) -> Machine:
        """Return what draws. Asked first.

        Raises:
            UserError: this machine lacks what drawing needs.
        """
        return machine_of(self._engine.device)

    def fitting_block(self, block: int) -> int:
        """Return the greatest of ``block``, its half, its quarter, … that fits into the memory; 0 if not even 1 does.

        To be asked of a sampler that draws nothing afterwards.
        """
        image = torch.full((1, *self._shape), 0.5)
        while block and not self._fits(image, block):
            block //= 2
        return block

    def _fits(self, image: torch.Tensor, block: int) -> bool:
        try:
            self._engine.count_images(image, ["fits"], self._seed, Phase("fits", 2 * block, block), 0, 2)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # What it has allocated goes with it.
            self.__dict__.pop("_engine", None)
            torch.cuda.empty_cache()
            return False
        return True

    def rates(self, blocks: Sequence[int], seconds: float = 1.0) -> list[float]:
        """Measure noise draws a second of one image with blocks of each size.

        Each is the better of two tries of half ``seconds``; 0 for a block that does not fit into the device's memory.
        """
        image = torch.full((1, *self._shape), 0.5)
        rates = []
        for block in blocks:
            try:
                rates.append(self._rate(image, Phase("rates", 2**40, block), seconds))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                rates.append(0.0)
                torch.cuda.empty_cache()
        return rates

    def _rate(self, image: torch.Tensor, phase: Phase, seconds: float) -> float:
        best = 0.0
        self._engine.count_images(image, ["rates"], self._seed, phase, 0, 1)
        for _ in range(2):
            started, done = time.perf_counter(), 0
            while time.perf_counter() - started < seconds / 2:
                # Several at once, as in a run: the device is waited for after the last only.
                self._engine.count_images(image, ["rates"], self._seed, phase, done, done + 4)
                done += 4
            best = max(best, done * phase.block / (time.perf_counter() - started))
        return best

    def draw(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        """Draw what a task asks for; one result for each request. Keeps the images for later tasks."""
        images = [self._images(request) for request in requests]
        results = self._draw_shared(requests, images) if self._shared else self._draw_each(requests, images)
        self._kept.trim()  # as the coordinator does
        return results

    @cached_property
    def _shared(self) -> SharedPasses | None:
        rows = self._arithmetic.pass_rows
        return None if rows is None else SharedPasses(self._engine, rows)

    def _images(self, request: SampleRequest) -> list[torch.Tensor]:
        """The request's images, new ones kept: as the noise places them where passes are shared, else as they come."""
        if request.pixels is None:
            return self._kept.use(request.names)
        images = torch.tensor(request.pixels)
        return self._kept.use(request.names, self._engine.noise.placed(images) if self._shared else images)

    def _draw_shared(
        self, requests: Sequence[SampleRequest], images: Sequence[list[torch.Tensor]]
    ) -> list[SampleResult]:
        """All requests in passes of one shape. Each is said to take its draws' part of the time."""
        shared = self._shared
        assert shared is not None
        started = time.perf_counter()
        asked = [Asked(request.names, request.phase, request.first, request.stop) for request in requests]
        named: dict[str, torch.Tensor] = {}
        for a, some in zip(asked, images, strict=True):
            named.update(zip(a.names, some, strict=True))
        place = {name: at for at, name in enumerate(named)}
        try:
            counts = shared.count(
                asked, torch.stack(list(named.values())), [place[name] for a in asked for name in a.names], self._seed
            )
        except Exception as error:
            raise self._told(error, shared.rows, "") from error
        seconds = (time.perf_counter() - started) / sum(a.rows for a in asked)
        return [SampleResult(found, a.rows * seconds) for found, a in zip(counts, asked, strict=True)]

    def _draw_each(self, requests: Sequence[SampleRequest], images: Sequence[list[torch.Tensor]]) -> list[SampleResult]:
        """Each request in passes of its own."""
        results = []
        for request, own in zip(requests, images, strict=True):
            started = time.perf_counter()
            names, phase, first, stop = request.names, request.phase, request.first, request.stop
            try:
                counts = self._engine.count_images(torch.stack(list(own)), names, self._seed, phase, first, stop)
            except Exception as error:
                where = f"image {', '.join(names)}, {phase.name} blocks {first} to {stop - 1}"
                raise self._told(error, len(own) * phase.block, where) from error
            results.append(SampleResult(counts, time.perf_counter() - started))
        return results

    def _told(self, error: Exception, rows: int, where: str) -> Exception:
        """Return what an error in a pass of so many rows is to be called."""
        logger(run=self._run).error("%s: %s", where or "a shared pass", error)
        if is_out_of_memory(error):
            return UserError(
                f"--block: {rows} rows do not fit into the memory; give a smaller --block, or --block auto"
            )
        return BrokenModelError(f"{error} ({where})") if isinstance(error, BrokenModelError) and where else error
