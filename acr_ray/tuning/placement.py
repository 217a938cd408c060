"""Placement groups that nobody lives in: seen to be left behind by killed drivers and stopped trials."""

from __future__ import annotations

import logging
import time

import ray
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

EVERY = 30.0  # seconds between looks
_seen: dict[str, float] = {}
_last = [0.0]


def free_leaked(at_end: bool = False) -> int:
    """Give back the CPUs of placement groups of this job that have had no actor at two looks. Returns how many.

    Args:
        at_end: no trial runs any more: every group of this job is free to go, at once.
    """
    now = time.monotonic()
    if not at_end and now - _last[0] < EVERY:
        return 0
    _last[0] = now
    empty = _groups_of_this_job() - (set() if at_end else _inhabited())
    leaked = [group for group in empty if at_end or group in _seen]
    _seen.clear()
    _seen.update(dict.fromkeys(empty - set(leaked), now))
    for group in leaked:
        logging.getLogger(__name__).warning("freeing placement group %s, which nobody uses", group)
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
    return len(leaked)


def _groups_of_this_job() -> set[str]:
    """Ids (hex) of the groups that hold resources for this job."""
    own = ray.get_runtime_context().get_job_id()
    # A placement group's id ends with the id of the job that made it.
    table = placement_group_table()
    return {group for group, entry in table.items() if entry["state"] == "CREATED" and group.endswith(own)}


def _inhabited() -> set[str]:
    """Ids of the groups in which an actor lives or is about to. Where that can't be asked, all of them."""
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
