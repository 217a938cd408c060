"""Which device and which torch draw: with others the last bits of a logit may differ."""

from __future__ import annotations

import torch

from acr_ray.certification.pool import Machine
from acr_ray.smoothing.processor import processor_flags, processor_name


def machine_of(device: str) -> Machine:
    """Describe what draws in this process. Args: ``cpu`` or ``cuda``."""
    if device != "cpu":
        return Machine(torch.cuda.get_device_name(), str(torch.__version__))
    # Which kernels torch takes on it; those of int8 also differ with AMX.
    kernels = torch.backends.cpu.get_cpu_capability() + (", AMX" if "amx_int8" in processor_flags() else "")
    return Machine(f"{processor_name()} ({kernels})", str(torch.__version__))
