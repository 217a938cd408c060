"""Asks every node of a Ray cluster, and lets them exchange tensors as training would."""

from __future__ import annotations

import contextlib
import datetime
import socket
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from acr_ray.preflight.facts import Questions, clock, facts
from acr_ray.preflight.findings import FAILED, OK, WARNING, Finding
from acr_ray.storage import Folder
from acr_ray.storage.node_checks import gpu_problem, node_problem

PINGS = 5
TENSOR = 16 * 2**20  # bytes that are summed over all processes: as much as a small network's gradients


class Node:
    """A worker on one node."""

    def facts(self, questions: Questions, node: str) -> dict[str, Any]:
        return facts(questions, node)

    def clock(self) -> float:
        return clock()

    def problem(self, out: str, name: str) -> str | None:
        return node_problem(Folder(out), name)

    def gpu_problem(self) -> str | None:
        return gpu_problem()


class Peer:
    """One process of a group that sums a tensor."""

    def address(self) -> tuple[str, int]:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def join(self, where: tuple[str, int], rank: int, world: int, backend: str, seconds: float) -> float:
        """Sum a tensor with the others. Returns the seconds that the second time took; the first one connects."""
        import torch
        import torch.distributed as dist

        device = "cuda" if backend == "nccl" else "cpu"
        dist.init_process_group(
            backend,
            init_method=f"tcp://{where[0]}:{where[1]}",
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(seconds=seconds),
        )
        for _ in range(2):
            tensor = torch.full((TENSOR // 4,), float(rank + 1), device=device)
            started = time.monotonic()
            dist.all_reduce(tensor)
            total = float(tensor[-1])  # waits for the device
            if total != world * (world + 1) / 2:
                raise ValueError(f"the sum over {world} processes is {total}, not {world * (world + 1) / 2}")
        taken = time.monotonic() - started
        dist.destroy_process_group()
        return taken


def living_nodes() -> dict[str, dict[str, Any]]:
    """Ray's own description of each node that it holds to be alive, by address (twice the same: with its id)."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    addresses = [node["NodeManagerAddress"] for node in alive]
    return {
        a if addresses.count(a) == 1 else f"{a}#{node['NodeID'][:6]}": node
        for a, node in zip(addresses, alive, strict=True)
    }


def total_resources() -> dict[str, float]:
    """What the cluster has in all, by Ray's names, such as ``CPU`` and ``GPU``; of all, not only of what is free."""
    return ray.cluster_resources()


def ask(nodes: dict[str, dict[str, Any]], questions: Questions, seconds: float) -> dict[str, dict[str, Any]]:
    """`facts` of each node, ``{"lost": reason}`` if it did not answer in time; with ``skew``: see `clocks`."""
    actors = {name: _on(Node, node).remote() for name, node in nodes.items()}
    asked = {name: actor.facts.remote(questions, nodes[name]["NodeID"]) for name, actor in actors.items()}
    answers: dict[str, dict[str, Any]] = {}
    until = time.monotonic() + seconds
    for name, reference in asked.items():
        try:
            answers[name] = ray.get(reference, timeout=max(until - time.monotonic(), 0.1))
            answers[name]["skew"] = _skew(actors[name])
        except ray.exceptions.GetTimeoutError:
            answers[name] = {"lost": f"nothing within {seconds:.0f} s"}
        except ray.exceptions.RayError as error:
            answers[name] = {"lost": " ".join(str(error).split())[:200]}
    for actor in actors.values():
        ray.kill(actor)
    return answers


def problem_of_a_node(out: Folder, name: str, cpus: float, gpus: float, seconds: float = 60) -> str | None:
    """Return what keeps a node that has room for a worker from working for a run; None if nothing is known to.

    Args:
        out: the run's folder.
        name: of a file that the driver has written there.
        cpus, gpus: of a worker.
        seconds: for all nodes together. One that does not answer is left for Ray to find out about.
    """
    actors = [_on(Node, node).remote() for node in _with_room(cpus, gpus)]
    return _first_problem(actors, [actor.problem.remote(out.uri, name) for actor in actors], seconds)


def problem_of_a_gpu(cpus: float, gpus: float, seconds: float = 60) -> str | None:
    """Return why torch cannot use a GPU of a node that has room for a worker; None if nothing is known to be wrong.

    Args:
        cpus, gpus: of a worker; without GPUs nothing is asked.
        seconds: for all nodes together. A node whose GPUs are all busy until then is left to the workers.
    """
    actors = [_on(Node, node, gpus).remote() for node in _with_room(cpus, gpus)] if gpus else []
    return _first_problem(actors, [actor.gpu_problem.remote() for actor in actors], seconds)


def _with_room(cpus: float, gpus: float) -> list[dict[str, Any]]:
    """The living nodes that could hold a worker, busy or not."""
    nodes = [n for n in living_nodes().values() if n["Resources"].get("CPU", 0) >= cpus]
    return [n for n in nodes if n["Resources"].get("GPU", 0) >= gpus]


def _first_problem(actors: Sequence[Any], asked: Sequence[Any], seconds: float) -> str | None:
    """Wait for the actors' answers, end the actors, and return the first answer that names a problem."""
    until = time.monotonic() + seconds
    problems = []
    for reference in asked:
        with contextlib.suppress(ray.exceptions.RayError):
            problems.append(ray.get(reference, timeout=max(until - time.monotonic(), 0.1)))
    for actor in actors:
        ray.kill(actor)
    return next((problem for problem in problems if problem), None)


def exchange(nodes: dict[str, dict[str, Any]], gpus_per_worker: float, seconds: float) -> Finding:
    """Have a process on each node that computes (on each GPU, if workers have GPUs) sum a tensor with the others.

    What it finds are networks, firewalls and interfaces that training would find after minutes of waiting.
    """
    backend = "nccl" if gpus_per_worker else "gloo"
    places = _places(nodes, gpus_per_worker)
    if len(places) < 2 and not gpus_per_worker:
        places = places * 2  # one machine: its two workers talk as well
    if not places:
        return Finding("network", WARNING, "no node with room for a worker; exchange of gradients was not tried")
    peers = [_on(Peer, node, 1 if gpus_per_worker else 0).remote() for _, node in places]
    names = ", ".join(dict.fromkeys(name for name, _ in places))
    try:
        where = ray.get(peers[0].address.remote(), timeout=seconds)
        joined = [p.join.remote(where, rank, len(peers), backend, seconds) for rank, p in enumerate(peers)]
        taken = max(ray.get(joined, timeout=2 * seconds))
    except ray.exceptions.GetTimeoutError:
        return Finding(
            "network",
            FAILED,
            f"{backend}: the processes on {names} did not come together within {2 * seconds:.0f} s. "
            f"Let the nodes reach each other on all ports, or wait for busy GPUs; {_interface(backend)}",
        )
    except ray.exceptions.RayError as error:
        cause = " ".join(str(getattr(error, "cause", None) or error).split())[:200]
        return Finding(
            "network",
            FAILED,
            f"{backend}: the processes on {names} could not sum a tensor ({cause}). {_interface(backend)}",
        )
    finally:
        for peer in peers:
            ray.kill(peer)
    rate = TENSOR / 2**20 / max(taken, 1e-9)
    return Finding("network", OK, f"{backend}: {len(peers)} processes on {names} sum 16 MiB, {rate:,.0f} MiB/s")


def _interface(backend: str) -> str:
    name = "NCCL_SOCKET_IFNAME" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    return f"Set {name} on each node to the interface that leads to the others (ip -br address)"


def _places(nodes: dict[str, dict[str, Any]], gpus_per_worker: float) -> list[tuple[str, dict[str, Any]]]:
    kind = "GPU" if gpus_per_worker else "CPU"
    counted = [(name, node, int(node["Resources"].get(kind, 0))) for name, node in nodes.items()]
    return [(name, node) for name, node, has in counted for _ in range(has if gpus_per_worker else min(has, 1))]


def _skew(actor: Any) -> tuple[float, float]:
    best = (0.0, float("inf"))
    for _ in range(PINGS):
        sent = clock()
        there = ray.get(actor.clock.remote(), timeout=10)
        back = clock()
        if (back - sent) / 2 < best[1]:
            best = (there - (sent + back) / 2, (back - sent) / 2)
    return best


def _on(kind: type, node: dict[str, Any], gpus: float = 0) -> Any:
    """Return the class as an actor that lives on this node or nowhere."""
    pinned = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    # Ray's types let a strategy be text or a placement group's, not a node's.
    options: dict[str, Any] = {"num_gpus": gpus, "scheduling_strategy": pinned}
    return ray.remote(num_cpus=0, max_restarts=0, **options)(kind)
