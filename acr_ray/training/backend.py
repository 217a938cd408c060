"""Ray Train's torch set-up: workers that look for their GPU first, and take SIGTERM as a request to save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig

from acr_ray.formats.states import ProblemKind
from acr_ray.settings import UserError
from acr_ray.storage import Folder
from acr_ray.storage.node_checks import gpu_problem
from acr_ray.training.control.channel import ControlChannel
from acr_ray.training.control.messages import Problem
from acr_ray.training.control.requests import listen_for_termination

# torch gives up after half an hour in which a worker waits for another. p_A estimates of ImageNet take hours, and a
# worker on a quicker GPU waits for the slowest; a worker that is lost is noticed by Ray, not by this.
TIMEOUT_S = 6 * 3600


class _Listening(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray's class has no public name
    """The training function runs in a thread, where Python sets no signal handlers; this runs in the main one."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        if backend_config.backend == "nccl":
            self._check_gpus(worker_group, getattr(backend_config, "out", ""))
        super().on_start(worker_group, backend_config)
        worker_group.execute(listen_for_termination)

    @staticmethod
    def _check_gpus(worker_group: Any, out: str) -> None:
        """Leave a line for the driver if a worker cannot use its GPU: NCCL's own answer is a traceback of 27."""
        found = [problem for problem in worker_group.execute(gpu_problem) if problem]
        if found:
            ControlChannel(Folder(out)).report_problem(Problem(kind=ProblemKind.USER, text=found[0]))
            raise UserError(found[0])


@dataclass
class _ListeningConfig(TorchConfig):
    out: str = ""  # folder of the run

    @property
    def backend_cls(self) -> type:
        return _Listening


def listening_torch(backend: str, out: str = "") -> TorchConfig:
    """Return the process group's configuration.

    Args:
        backend: ``gloo`` or ``nccl``.
        out: folder of the run, where the driver finds what is wrong.
    """
    return _ListeningConfig(backend=backend, timeout_s=TIMEOUT_S, out=out)
