"""Placement groups that nobody lives in: seen to be left behind by killed drivers and stopped trials."""

from __future__ import annotations

import logging
import time

import ray
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

EVERY = 30.0  # seconds between checks


class LeakedGroups:
    """Gives back the CPUs of this job's placement groups that nobody uses any more."""

    def __init__(self) -> None:
        self._unused: set[str] = set()  # at the last check
        self._checked = 0.0

    def free_unused(self) -> int:
        """Free the groups that had no actor at two checks. Returns how many; does nothing soon after a check."""
        now = time.monotonic()
        if now - self._checked < EVERY:
            return 0
        self._checked = now
        unused = _groups_of_this_job() - _inhabited()
        leaked = unused & self._unused
        self._unused = unused - leaked
        return _free(leaked)

    def free_all(self) -> int:
        """Free every group of this job: no trial runs any more. Returns how many."""
        self._unused = set()
        return _free(_groups_of_this_job())


def _free(groups: set[str]) -> int:
    for group in groups:
        logging.getLogger(__name__).warning("freeing placement group %s, which nobody uses", group)
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
    return len(groups)


def _groups_of_this_job() -> set[str]:
    """Return the ids (hex) of the groups that hold resources for this job."""
    own = ray.get_runtime_context().get_job_id()
    # A placement group's id ends with the id of the job that made it.
    table = placement_group_table()
    return {group for group, entry in table.items() if entry["state"] == "CREATED" and group.endswith(own)}


def _inhabited() -> set[str]:
    """Return the ids of the groups in which an actor lives or is about to. Where that can't be asked, all of them."""
    from ray.util.state import list_actors

    own = ray.get_runtime_context()
    try:
        # By address: left to itself the state API would look for any cluster on this machine.
        actors = list_actors(address=own.gcs_address, detail=True, limit=10_000, raise_on_missing_output=False)
    except Exception:  # it needs the dashboard, which a private cluster of one process has not
        return _groups_of_this_job()
    alive = [actor for actor in actors if actor.state != "DEAD"]
    # The search has an actor of its own as long as it runs: an answer without any is not about this cluster.
    if not any(actor.job_id == own.get_job_id() for actor in alive):
        return _groups_of_this_job()
    return {actor.placement_group_id for actor in alive if actor.placement_group_id}
