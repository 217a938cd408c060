"""From what nodes said to what is wrong and what to do: plain functions of values, no cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from acr_ray.storage.node_checks import LEAST

OK, WARNING, FAILED = "ok", "warning", "FAILED"
LEAST_TEMPORARY = 2**30  # Ray spills and logs there
SKEW, WORST_SKEW = 2.0, 60.0  # seconds; S3 refuses requests that are 15 minutes off, logs mislead long before


@dataclass(frozen=True)
class Finding:
    """One check's outcome.

    Attributes:
        check: its name, such as ``storage``.
        status: `OK`, `WARNING` or `FAILED`.
        text: what was found, one line; if it is not `OK` it ends with what to do.
    """

    check: str
    status: str
    text: str


Nodes = Mapping[str, dict[str, Any]]  # by address: what `facts` gave, or {"lost": reason}


def answered(nodes: Nodes) -> Finding:
    """Judge whether every node started a worker and let it answer."""
    lost = {name: facts["lost"] for name, facts in nodes.items() if "lost" in facts}
    if lost:
        reasons = "; ".join(f"{name}: {why}" for name, why in lost.items())
        return Finding("nodes", FAILED, f"no answer from {reasons}. Look into that node's raylet and worker logs")
    return Finding("nodes", OK, f"{len(nodes)} answer: {', '.join(nodes)}")


def same_versions(driver: Mapping[str, str], nodes: Nodes) -> Finding:
    """Judge whether all nodes run what the driver runs."""
    wrong = []
    for name, facts in _living(nodes):
        seen = facts["versions"]
        # NCCL and CUDA are compared between machines with GPUs only: a head often has none.
        keys = [k for k in driver if k not in ("cuda", "nccl") or (k in seen and facts["gpus"])]
        differs = [f"{k} {seen.get(k, 'missing')} (driver: {driver[k]})" for k in keys if seen.get(k) != driver[k]]
        wrong += [f"{name} has {', '.join(differs)}"] if differs else []
    if wrong:
        return Finding(
            "versions", FAILED, f"{'; '.join(wrong)}. Use one image, or pip install -c constraints.txt on every node"
        )
    return Finding("versions", OK, ", ".join(f"{k} {v}" for k, v in driver.items() if k in ("python", "ray", "torch")))


def clocks(skews: Mapping[str, tuple[float, float]]) -> Finding:
    """Judge whether the nodes' clocks agree.

    Args:
        skews: by node: seconds by which its clock is ahead of the driver's, and how far off that may be.
    """
    off = {name: skew for name, (skew, error) in skews.items() if abs(skew) - error > SKEW}
    if off:
        listed = ", ".join(f"{name} {skew:+.1f} s" for name, skew in off.items())
        worst = max(abs(skew) for skew in off.values())
        return Finding(
            "clocks", FAILED if worst > WORST_SKEW else WARNING, f"{listed} against the driver. Run NTP on every node"
        )
    most = max((abs(skew) for skew, _ in skews.values()), default=0.0)
    return Finding("clocks", OK, f"at most {most:.2f} s apart")


def shared_memory(nodes: Nodes) -> Finding:
    """Judge whether ``/dev/shm`` has room: Ray's objects and NCCL's buffers lie there."""
    full = [
        f"{name} has {_mib(facts['shared_memory']['free'])} free of {_mib(facts['shared_memory']['total'])}"
        for name, facts in _living(nodes)
        if facts["shared_memory"] and facts["shared_memory"]["free"] < LEAST
    ]
    if full:
        return Finding(
            "/dev/shm",
            FAILED,
            f"{'; '.join(full)}. Delete what fills it, or give the container more (shm_size, a memory-backed emptyDir)",
        )
    least = min((f["shared_memory"]["free"] for _, f in _living(nodes) if f["shared_memory"]), default=0)
    return Finding("/dev/shm", OK, f"at least {_mib(least)} free")


def temporary(nodes: Nodes) -> Finding:
    """Judge whether Ray's temporary folders have room."""
    full = [
        f"{name} has {_mib(facts['temporary']['free'])} free"
        for name, facts in _living(nodes)
        if facts["temporary"] and facts["temporary"]["free"] < LEAST_TEMPORARY
    ]
    if full:
        return Finding("disk", WARNING, f"{'; '.join(full)} where Ray spills and logs. Make room, or set --temp-dir")
    return Finding("disk", OK, "room for Ray's logs and spilled objects")


def storage(location: str, nodes: Nodes, seen: Iterable[str]) -> Finding:
    """Judge whether all nodes and the driver see one and the same folder.

    Args:
        seen: nodes whose files the driver found.
    """
    living, seen = _living(nodes), set(seen)
    blind = [name for name, facts in living if facts["storage"]["sees"] is False]
    if blind:
        return Finding(
            "storage",
            FAILED,
            f"--storage {location}: {', '.join(blind)} does not see what the driver wrote there. "
            "Use a shared file system mounted alike on every node, or object storage such as s3://bucket/run",
        )
    broken = [f"{name} ({facts['storage']['error']})" for name, facts in living if facts["storage"]["sees"] is None]
    if broken:
        return Finding(
            "storage",
            FAILED,
            f"--storage {location}: cannot be written from {'; '.join(broken)}. "
            "Give that node's user, or its role, the right to write there",
        )
    absent = [name for name, _ in living if name not in seen]
    if absent:
        return Finding(
            "storage",
            FAILED,
            f"--storage {location}: the driver does not see what {', '.join(absent)} "
            "wrote there. Use storage that all nodes share",
        )
    return Finding("storage", OK, f"{location} is written and read by every node")


def data(dataset: str, root: str | None, nodes: Nodes) -> Finding:
    """Judge whether all nodes see the same images."""
    living = _living(nodes)
    broken = [f"{name}: {facts['data']['error']}" for name, facts in living if "error" in facts["data"]]
    if broken:
        return Finding("data", FAILED, f"{'; '.join(broken)}. Mount the data alike on every node, or give a URI")
    kinds = Counter(facts["data"]["fingerprint"] for _, facts in living)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = [
            f"{name} ({facts['data']['images']} images)"
            for name, facts in living
            if facts["data"]["fingerprint"] != usual
        ]
        return Finding(
            "data",
            FAILED,
            f"--data.root {root}: {', '.join(odd)} sees other images than the rest. Copy the data anew there",
        )
    first: dict[str, Any] = living[0][1]["data"] if living else {"images": 0}
    decoded = f", {first['decoded']:,} of them decoded" if "decoded" in first else ""
    remarks = "".join(f"; {line}" for line in first.get("remarks", ()))
    return Finding("data", OK, f"{dataset}: the same {first['images']:,} images on every node{decoded}{remarks}")


def resources(total: Mapping[str, float], nodes: Nodes, workers: int, gpus: float, cpus: float) -> Finding:
    """Judge whether the cluster has room for the workers, and Ray knows every GPU that is there."""
    for kind, each in (("CPU", cpus), ("GPU", gpus)):
        if workers * each > total.get(kind, 0):
            return Finding(
                "resources",
                FAILED,
                f"{workers} workers need {workers * each:g} {kind}s, the cluster has "
                f"{total.get(kind, 0):g}. Use fewer workers, or start more nodes (an autoscaling cluster may yet)",
            )
    real = sum(len(facts["gpus"]) for _, facts in _living(nodes))
    if real != total.get("GPU", 0):
        return Finding(
            "resources",
            WARNING,
            f"Ray knows of {total.get('GPU', 0):g} GPUs, the drivers of {real}. Check "
            "--num-gpus of ray start, and the NVIDIA container runtime",
        )
    return Finding("resources", OK, f"{total.get('CPU', 0):g} CPUs, {real} GPUs")


def _living(nodes: Nodes) -> list[tuple[str, dict[str, Any]]]:
    return [(name, facts) for name, facts in nodes.items() if "lost" not in facts]


def _mib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
