"""A certification job without its start and its end: coordinator, ledger and two actors that are ready."""

from __future__ import annotations

import tempfile
import time

import numpy as np
import ray

from acr_ray.certification.coordinator import Coordinator
from acr_ray.certification.count_store import CountStore
from acr_ray.certification.ledger import Ledger
from acr_ray.certification.pool import SamplerReady
from acr_ray.certification.procedure import CertificationProcedure
from acr_ray.certification.sampler import Arithmetic
from acr_ray.certification.sampler_pool import Actors, RaySamplerPool
from acr_ray.data.image_set import MemorySet
from acr_ray.models import ModelCard, build_model, state_bytes
from acr_ray.settings import CertifySettings
from acr_ray.storage import Folder


class _Ready(RaySamplerPool):
    """A pool whose actors outlive a run: they are started and ready before it, and kept after it."""

    def start_all(self, count: int) -> None:
        """Start so many actors and wait until they are ready."""
        self._samplers = [super(_Ready, self).start() for _ in range(count)]
        waiting = count
        while waiting:
            waiting -= sum(isinstance(event, SamplerReady) for event in self.wait(1.0))
        self._free = list(self._samplers)

    def start(self):
        sampler = self._free.pop()
        self._expect_ready(sampler)
        return sampler

    def release(self, sampler) -> None:
        self._forget(sampler)
        self._free.append(sampler)


class Job:
    """Certifies the same images again and again with two actors on two cores.

    Args:
        name: network, for 32x32 images.
        images: how many.
        n: draws of each, all of them estimation draws but for one.
    """

    def __init__(self, name: str, images: int, n: int) -> None:
        rng, shape = np.random.default_rng(0), (3, 32, 32)
        self._images = MemorySet(
            rng.integers(0, 256, (images, *shape), dtype=np.uint8),
            dataset="cifar10",
            split="test",
            labels=np.zeros(images, dtype=np.int64),
            names=[f"bench/{i}" for i in range(images)],
            class_names=[str(i) for i in range(10)],
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
        )
        self._settings = CertifySettings(sigma=0.25, dataset="cifar10", n0=1, n=n, block=200)
        model = build_model(name, 10, shape, (0.5,) * 3, (0.25,) * 3, seed=0)
        card = ModelCard.of(name, self._images, sigma=0.25)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._pool = _Ready(card, state_bytes(model), 0.25, 0, Arithmetic(), Actors(2, 2))
        self._pool.start_all(2)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()

    def seconds(self) -> float:
        """Seconds from the first task to the last result in the ledger."""
        with tempfile.TemporaryDirectory() as folder:
            store = CountStore(CertificationProcedure(self._settings), self._images.names, self._images.labels.tolist())
            ledger = Ledger(Folder(folder), self._images.names, 10)
            coordinator = Coordinator(ledger, store, self._images, self._pool, 2, 2, self._settings.block)
            started = time.perf_counter()
            coordinator.run()
            return time.perf_counter() - started
