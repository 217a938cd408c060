"""A Ray job from its submission to its end, with what it prints passed on."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: What Ray writes into a job's output before the job begins.
RAYS_OWN = re.compile(r"\S+ \S+\t[A-Z]+ job_manager\.py|Running entrypoint for job ")
ADDRESS = "RAY_API_SERVER_ADDRESS"  # of the dashboard; Ray prefers it to the address that a client is given


class JobLost(RuntimeError):
    """The cluster could not be asked about the job any more."""


def run_job(dashboard: str, token: str, entrypoint: str, folder: Path) -> bool:
    """Submit a job, print its output while it runs, and wait for its end.

    Args:
        dashboard: the cluster's address for jobs, e.g. ``http://127.0.0.1:8265``.
        token: of the cluster.
        entrypoint: the job's command line.
        folder: its working directory, which is uploaded.

    Returns:
        Whether it succeeded.

    Raises:
        JobLost: the cluster does not take the job, or went away.
    """
    # With these come seconds of loading, which --help need not wait for.
    import aiohttp
    from ray.exceptions import RayError
    from ray.job_submission import JobStatus, JobSubmissionClient

    for name in ("ray", JobSubmissionClient.__module__, "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)  # the second and third have levels of their own
    try:
        with _preferring(dashboard):
            client = JobSubmissionClient(dashboard, headers={"Authorization": f"Bearer {token}"})
        job = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(folder)})
        asyncio.run(_print_output(client, job))
        while not (status := client.get_job_status(job)).is_terminal():  # its output ends a moment before it does
            time.sleep(0.2)
    except (RuntimeError, OSError, RayError, aiohttp.ClientError) as error:
        raise JobLost(f"the Ray job was lost ({' '.join(str(error).split())[:300]})") from error
    return status == JobStatus.SUCCEEDED


async def _print_output(client: Any, job: str) -> None:
    async for text in client.tail_job_logs(job):
        for line in text.splitlines(keepends=True):
            if not RAYS_OWN.match(line):
                print(line, end="", flush=True)


@contextmanager
def _preferring(dashboard: str) -> Iterator[None]:
    """Keep a client from the cluster that the user's environment names."""
    before = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = dashboard
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS]
        else:
            os.environ[ADDRESS] = before
