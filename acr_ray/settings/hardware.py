"""What a process that computes should be started with."""

from __future__ import annotations

from collections.abc import Mapping

# glibc gives large blocks back to the system at once, and every new tensor of a forward pass faults its pages in
# again: up to twice the time of a small network. These keep up to half a gigabyte at hand instead.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}

# What tells more of a group of workers that does not get on. Which network to use is another thing on every node, and
# is read there: NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME are not among them.
TOLD_TO_WORKERS = ("NCCL_DEBUG", "TORCH_NCCL_", "TORCH_DISTRIBUTED_DEBUG", "TORCH_CPP_LOG_LEVEL")


def group_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of workers that train together.

    Args:
        own: this process's; what the user has set in it to see what workers do is passed on.
    """
    return WORKER_ENVIRONMENT | {name: value for name, value in own.items() if name.startswith(TOLD_TO_WORKERS)}
