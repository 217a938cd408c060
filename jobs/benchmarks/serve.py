"""The service against the engine's own draws, and against one image after the other, at 1, 8 and 64 clients.

Two kinds of requests: ``fixed``, where each asks for all ``--draws`` of p_a, so that what it costs is known; and
``certify``, where the rule ends each image when it is decided. Clients are threads of this process with a connection
each; every request asks for fresh noise. At 70 % of the rate of 64 clients, requests then come at their own times,
whether or not others are answered.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from acr_ray.settings.hardware import WORKER_ENVIRONMENT
from jobs.benchmarks.figures import figure
from jobs.benchmarks.processes import Worker

WORKS = "jobs.benchmarks.serve_works"
CLIENTS = (1, 8, 64)
LOAD = 0.7


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--draws", type=int, help="of a fixed request [default: 10000; --quick: 5000]")
    parser.add_argument("--deadline-ms", type=int, default=2000, help="of each request [default: 2000]")
    parser.add_argument("--seconds", type=float, help="of each measurement [default: 10; --quick: 1.5]")
    parser.add_argument("--rounds", type=int, metavar="K", help="measurements of each [default: 3; --quick: 1]")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print a table, and return the JSON object's fields."""
    from acr_ray.cli.commands import serve
    from acr_ray.cli.service_place import Place

    draws = options.draws or (5000 if options.quick else 10_000)
    seconds = options.seconds or (1.5 if options.quick else 10.0)
    rounds = options.rounds or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory() as temporary, Worker(WORKS, WORKER_ENVIRONMENT) as worker:
        folder = worker.call("write_model", folder=str(Path(temporary) / "model"))
        found: dict[str, Any] = {}

        def measure(address: str) -> None:
            found.update(Measurement(address, worker, folder, draws, seconds, options.deadline_ms).all(rounds))

        gpus = 1 if options.device == "cuda" else 0
        serve.run(
            folder,
            Place(port=0, secret_file=str(Path(temporary) / "secret"), gpus_per_replica=gpus),
            settings={"max_draws": max(draws, 10_000), "deadline_ms": 60_000},
            wait=measure,
        )
    return found


class Measurement:
    """Requests to one service.

    Args:
        address: of the service.
        worker: a process that runs the engine alone.
        folder: of the model.
        draws: of a fixed request.
        seconds: of each measurement.
        deadline_ms: of each request at `LOAD`.
    """

    def __init__(self, address: str, worker: Worker, folder: str, draws: int, seconds: float, deadline_ms: int) -> None:
        place = urlsplit(address)
        self._host, self._port, self._worker, self._folder = place.hostname, place.port, worker, folder
        self._draws, self._seconds, self._deadline_ms = draws, seconds, deadline_ms
        images = np.random.default_rng(0).random((64, 1, 8, 8)).round(3).tolist()
        fixed = {"label": 0, "max_draws": draws}
        self._bodies = {
            kind: [json.dumps({"image": {"array": image}, "fresh": True, **options}).encode() for image in images]
            for kind, options in (("p_a", fixed), ("certify", {}))
        }

    def all(self, rounds: int) -> dict[str, Any]:
        """All figures."""
        self._closed("certify", 8, 1.0)  # once unmeasured
        rows: dict[str, list[dict]] = {}
        engine, alone = [], []
        for _ in range(rounds):
            engine.append(self._worker.call("engine_rate", folder=self._folder, seconds=self._seconds / 2))
            alone.append(self._worker.call("one_by_one", folder=self._folder, seconds=self._seconds / 2))
            for kind, name in (("p_a", "fixed"), ("certify", "certify")):
                for clients in CLIENTS:
                    rows.setdefault(f"{name}, {clients}", []).append(self._closed(kind, clients, self._seconds))
        engine.append(self._worker.call("engine_rate", folder=self._folder, seconds=self._seconds / 2))
        limit = float(np.median(engine))
        found: dict[str, Any] = {"engine_per_s": figure(engine), "clients": {}}
        print(f"the engine alone: {limit:,.0f} draws/s; one image after the other: {np.median(alone):.1f} a second")
        for name, measured in rows.items():
            figures = {key: figure([one[key] for one in measured]) for key in measured[0]}
            figures["share_of_engine"] = figure([one["draws_per_s"] / limit for one in measured])
            found["clients"][name] = figures
            median = {key: value["median"] for key, value in figures.items()}
            print(
                f"  {name:12} {median['requests_per_s']:8,.1f} requests/s  p50 {median['p50_ms']:7.1f} ms"
                f"  p99 {median['p99_ms']:7.1f} ms  {median['share_of_engine']:.3f} of the engine's draws"
            )
        most = found["clients"]["certify, 64"]["requests_per_s"]
        found["share_of_engine"] = found["clients"]["fixed, 64"]["share_of_engine"]
        found["vs_one_by_one"] = figure([most["median"] / one for one in alone])
        rate = LOAD * found["clients"]["fixed, 64"]["requests_per_s"]["median"]
        late = [self._open("p_a", rate, self._seconds) for _ in range(rounds)]
        found["at_70_percent"] = {key: figure([one[key] for one in late]) for key in late[0]}
        within = found["at_70_percent"]["within_deadline"]["median"]
        print(f"  at {rate:.1f} requests/s (70 %): {within:.4f} within {self._deadline_ms} ms")
        return found

    def _ask(self, connection: http.client.HTTPConnection, kind: str, number: int, more: bytes = b"") -> dict:
        bodies = self._bodies[kind]
        body = bodies[number % len(bodies)]
        body = body[:-1] + more + b"}" if more else body
        connection.request("POST", f"/v1/{kind}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content.decode()}")
        return json.loads(content)["results"][0]

    def _closed(self, kind: str, clients: int, seconds: float) -> dict[str, float]:
        """Each client asks again as soon as it is answered."""
        ends = time.perf_counter() + seconds

        def client(number: int) -> list[tuple[float, int]]:
            connection, found = http.client.HTTPConnection(self._host, self._port), []
            while (started := time.perf_counter()) < ends:
                result = self._ask(connection, kind, number)
                found.append((time.perf_counter() - started, result["n"] + result.get("n0", 0)))
                number += clients
            return found

        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            found = [one for answers in pool.map(client, range(clients)) for one in answers]
        passed = time.perf_counter() - started
        times = 1000 * np.array([one for one, _ in found])
        return {
            "requests_per_s": len(found) / passed,
            "draws_per_s": sum(draws for _, draws in found) / passed,
            "p50_ms": float(np.quantile(times, 0.5)),
            "p99_ms": float(np.quantile(times, 0.99)),
        }

    def _open(self, kind: str, rate: float, seconds: float) -> dict[str, float]:
        """Requests come at exponential intervals, whoever is answered."""
        chance, local = np.random.default_rng(0), threading.local()
        arrivals = np.cumsum(chance.exponential(1 / rate, max(int(rate * seconds), 20)))
        begun = time.perf_counter() + 0.1
        more = f', "deadline_ms": {self._deadline_ms}'.encode()

        def one(number: int) -> float:
            due = begun + arrivals[number]
            time.sleep(max(0.0, due - time.perf_counter()))
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection(self._host, self._port)
            self._ask(local.connection, kind, number, more)
            return 1000 * (time.perf_counter() - due)

        with ThreadPoolExecutor(64) as pool:
            times = np.array(list(pool.map(one, range(len(arrivals)))))
        return {
            "requests_per_s": rate,
            "within_deadline": float((times <= self._deadline_ms).mean()),
            "p50_ms": float(np.quantile(times, 0.5)),
            "p99_ms": float(np.quantile(times, 0.99)),
        }
