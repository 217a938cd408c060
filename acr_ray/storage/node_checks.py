"""What a process that computes needs of the machine it is on: the driver's folder, room in /dev/shm, and its GPU."""

from __future__ import annotations

import shutil
import socket

from acr_ray.storage.folder import Folder

SHARED_MEMORY = "/dev/shm"
LEAST = 64 * 2**20  # bytes free; below, Ray's objects, loaders' batches and NCCL's buffers have no room


def shared_memory_problem(path: str = SHARED_MEMORY) -> str | None:
    """Return what is wrong with this machine's shared memory, and what to do; None if nothing is."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None  # systems without it put shared memory elsewhere
    if usage.free >= LEAST:
        return None
    return (
        f"{path} on {socket.gethostname()} has {usage.free // 2**20} MiB free of {usage.total // 2**20} MiB, at least "
        f"{LEAST // 2**20} are needed; delete what fills it, or give the container more (shm_size, a memory-backed "
        "emptyDir)"
    )


def storage_problem(out: Folder, name: str) -> str | None:
    """Return why this machine can't write results: it does not see a file that the driver has written there.

    Args:
        name: of that file.
    """
    try:
        if out.is_file(name):
            return None
        reason = "does not see what the driver wrote there"
    except OSError as error:
        reason = f"cannot read it ({' '.join(str(error).split())[:120]})"
    return (
        f"--out {out}: {socket.gethostname()} {reason}; use a shared file system that is mounted alike on every node, "
        "or object storage such as s3://bucket/run"
    )


def node_problem(out: Folder, name: str) -> str | None:
    """Either of the two: why this machine can't work for a run; None if nothing is known to be wrong."""
    return storage_problem(out, name) or shared_memory_problem()


def gpu_problem() -> str | None:
    """Return why this process cannot use the GPU that Ray has given it; None if it can."""
    import torch

    if torch.cuda.is_available():
        return None
    return (
        f"--gpus-per-worker: torch {torch.__version__} finds no GPU that it can use on {socket.gethostname()}, though "
        "Ray counts one; see nvidia-smi there (the driver's version, the container's GPUs), or train on CPUs"
    )
