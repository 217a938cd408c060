"""Ray Train's torch set-up, with workers that take SIGTERM as a request to save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig

from acr_ray.training.control.requests import listen_for_termination

# torch gives up after half an hour in which a worker waits for another. p_A estimates of ImageNet take hours, and a
# worker on a quicker GPU waits for the slowest; a worker that is lost is noticed by Ray, not by this.
TIMEOUT_S = 6 * 3600


class _Listening(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray's class has no public name
    """The training function runs in a thread, where Python sets no signal handlers; this runs in the main one."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(listen_for_termination)


@dataclass
class _ListeningConfig(TorchConfig):
    @property
    def backend_cls(self) -> type:
        return _Listening


def listening_torch(backend: str) -> TorchConfig:
    """Return the process group's configuration; ``backend``: ``gloo`` or ``nccl``."""
    return _ListeningConfig(backend=backend, timeout_s=TIMEOUT_S)
