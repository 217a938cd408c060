"""A certification that stops early, in one process: passes that images share against passes of one image."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch

from acr_ray.certification.coordinator import Coordinator
from acr_ray.certification.local_pool import LocalSamplerPool, drawing_here
from acr_ray.certification.run_plan import RunPlan
from acr_ray.certification.sampler import Arithmetic
from acr_ray.data import open_images
from acr_ray.models import ModelCard, state_bytes
from acr_ray.settings import CertifySettings
from acr_ray.smoothing.run_noise import pass_rows
from acr_ray.storage import Folder
from jobs.benchmarks.gpu_engine import trained

SIGMA, RADII = 0.5, (0.0, 0.25, 0.5, 0.75)
torch.set_num_threads(1)


class _Counting(LocalSamplerPool):
    """Counts the passes of its samplers and the rows in them."""

    passes = rows = 0

    def start(self) -> Any:
        handle = super().start()
        # The network is prepared by now; a hook on one that is compiled would be compiled along.
        network = self._samplers[handle]._engine.model
        forward = network.forward

        def counted(x: torch.Tensor) -> torch.Tensor:
            self.passes, self.rows = self.passes + 1, self.rows + len(x)
            return forward(x)

        network.forward = counted
        return handle


def run(shared: bool, images: int, n: int, block: int, device: str, dtype: str) -> dict[str, Any]:
    """Certify some digits until the answers at `RADII` are known.

    Returns:
        seconds without the sampler's start, noise draws, passes and rows of the passes.
    """
    model, *_ = trained()
    test = open_images("digits", None, "test").subset(range(images))
    settings = CertifySettings(
        sigma=SIGMA, dataset="digits", stopping="radii", radii=RADII, grid=16, n=n, block=block, device=device
    ).change({"dtype": dtype})
    settings = settings.change({"pass_rows": pass_rows(settings)}) if shared else settings
    with tempfile.TemporaryDirectory() as folder, drawing_here():
        plan = RunPlan(settings, test.names, range(images), test.labels, 10, "", "", "", test.class_names, 64)
        ledger, store = plan.open(Folder(folder))
        card = ModelCard.of("digits_resnet", test, sigma=SIGMA)
        pool = _Counting(card, state_bytes(model), SIGMA, 0, Arithmetic.of(settings))
        coordinator = Coordinator(ledger, store, test, pool, 1, 1, settings.rows_of_a_pass, shared=shared)
        started = time.perf_counter()
        coordinator.run()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "draws": store.noise_draws, "passes": pool.passes, "rows": pool.rows}
