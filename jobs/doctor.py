"""Look before a long run: python -m jobs.doctor [--storage DIR] [--dataset NAME --data.root PATH] [--workers N] …

Asks every node of the Ray cluster (RAY_ADDRESS; none: a private one here) and says for each check what was found, and
what to do where something is wrong. Exit code 0 where nothing failed, 1 where something did.
"""

from __future__ import annotations

import argparse
import uuid
from typing import Any

from acr_ray import __version__
from acr_ray.preflight import findings
from acr_ray.preflight.facts import DRIVER, Questions, versions
from acr_ray.preflight.findings import FAILED, OK, Finding
from acr_ray.settings import UserError
from acr_ray.settings.recipe import DATASETS, absolute_path
from acr_ray.storage import Folder, check_own, own
from acr_ray.tracking import default_uri, quieten
from jobs._main import JobFailed, Parser, entry, number, whole
from jobs._run import connect

SCHEMA_VERSION = 1


def parser() -> Parser:
    found = Parser(prog="python -m jobs.doctor", description=__doc__)
    found.add_argument("--storage", metavar="DIR", help="folder for results, to be seen by all nodes (--out of jobs)")
    found.add_argument("--dataset", choices=DATASETS, help="look for these images on every node")
    found.add_argument(
        "--data.root", dest="root", type=absolute_path, metavar="PATH", help="where they are: a path or a URI"
    )
    found.add_argument("--split", choices=("train", "test"), default="train", help="[default: train]")
    found.add_argument("--workers", type=whole(1), default=1, metavar="N", help="of the run to come [default: 1]")
    found.add_argument("--cpus-per-worker", type=whole(1), default=1, metavar="C", help="[default: 1]")
    found.add_argument("--gpus-per-worker", type=number(0), default=0, metavar="G", help=">= 0 [default: 0]")
    found.add_argument("--tracking-uri", metavar="URI", help="MLflow [default: MLFLOW_TRACKING_URI, else ./mlflow.db]")
    found.add_argument("--no-tracking", action="store_true", help="leave MLflow out")
    found.add_argument(
        "--seconds", type=number(5, 86400), default=60, metavar="S", help="for a node's answer [default: 60]"
    )
    found.add_argument("--out", metavar="DIR", help="keep the findings there as summary.json")
    found.add_argument("--verbose", action="store_true", help="show what Ray logs")
    return found


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    out = Folder(options.out) if options.out else None
    storage = Folder(options.storage, option="--storage") if options.storage else None
    if out:
        check_own(out, "doctor", ("summary.json",), "checks")
    connect(options.verbose)
    if out:
        own(out, "doctor", ("summary.json",), "checks")
    probe = f".doctor-{uuid.uuid4().hex[:8]}"
    if storage:
        storage.make_writable()
    told: list[Finding] = []

    def tell(finding: Finding) -> None:
        told.append(finding)
        print(f"{finding.status:<8} {finding.check:<10} {finding.text}", flush=True)

    if storage:
        (storage / probe).write_text(DRIVER, "")
    try:
        for finding in cluster(options, storage, probe):
            tell(finding)
    finally:
        if storage:
            storage.delete(probe)
    if not options.no_tracking:
        tell(tracking(options))
    if out:
        about = {"schema_version": SCHEMA_VERSION, "code_version": __version__}
        out.write_json("summary.json", about | {"checks": [vars(finding) for finding in told]})
    if failed := [finding.check for finding in told if finding.status == FAILED]:
        raise JobFailed(f"{len(failed)} of {len(told)} checks: {', '.join(failed)}; the lines above say what to do")
    print("nothing is in the way", flush=True)


def cluster(options: argparse.Namespace, storage: Folder | None, probe: str) -> Any:
    """The findings about nodes, each as soon as it is known."""
    import ray

    from acr_ray.preflight.nodes import ask, exchange, living_nodes

    questions = Questions(storage.uri if storage else None, probe, options.dataset, options.root, options.split)
    nodes = living_nodes()
    found = ask(nodes, questions, options.seconds)
    yield findings.answered(found)
    yield findings.same_versions(versions(), found)
    yield findings.clocks({name: node["skew"] for name, node in found.items() if "skew" in node})
    yield findings.shared_memory(found)
    yield findings.temporary(found)
    total = ray.cluster_resources()
    yield findings.resources(total, found, options.workers, options.gpus_per_worker, options.cpus_per_worker)
    if storage:
        seen = {name for name, node in nodes.items() if (storage / probe).is_file(f"node-{node['NodeID']}")}
        yield findings.storage(storage.uri, found, seen)
    if options.dataset:
        yield findings.data(options.dataset, options.root, found)
    yield exchange(nodes, options.gpus_per_worker, options.seconds)


def tracking(options: argparse.Namespace) -> Finding:
    quieten()
    from acr_ray.tracking.probe import check_mlflow

    try:
        return Finding("mlflow", OK, check_mlflow(options.tracking_uri or default_uri(Folder("."))))
    except UserError as error:
        return Finding("mlflow", FAILED, str(error))


if __name__ == "__main__":
    entry(main)
