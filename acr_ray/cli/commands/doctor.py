"""Look before a long run: what every node of the Ray cluster has and lacks for it.

Asks every node of the cluster (RAY_ADDRESS; none: a private one here) and says for each check what was found, and what
to do if something is wrong. Exit code 0 if nothing failed, 1 if something did.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from acr_ray import __version__
from acr_ray.cli.command_line import command_line
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.options import CLUSTER, RESULTS, add_tracking_options
from acr_ray.cli.parser import Parser, dataset_name, number, whole
from acr_ray.cli.ray_session import connect
from acr_ray.cli.results import DoctorResult
from acr_ray.formats.files import SUMMARY
from acr_ray.preflight import findings
from acr_ray.preflight.facts import DRIVER, Questions, versions
from acr_ray.preflight.findings import FAILED, OK, Finding
from acr_ray.settings import UserError
from acr_ray.settings.image_options import MOST_SIDE
from acr_ray.settings.recipe import absolute_path
from acr_ray.storage import Folder, check_own, own
from acr_ray.tracking import default_uri, quieten
from acr_ray.training.workers import Workers

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PlannedRun:
    """What the cluster is asked about: the run to come.

    Attributes:
        storage: folder or URI for results, to be seen by all nodes; None: not looked at.
        dataset: name of the images that every node must have; None: not looked at.
        root: where the images are, a path or a URI.
        split: ``train`` or ``test``.
        workers: DDP workers and their hardware.
        size: side of the square that images become; None: the data set's own.
    """

    storage: str | None = None
    dataset: str | None = None
    root: str | None = None
    split: str = "train"
    workers: Workers = Workers()
    size: int | None = None


def run(
    planned: PlannedRun,
    *,
    out: str | None = None,
    tracking: bool = True,
    tracking_uri: str | None = None,
    seconds: float = 60,
    verbose: bool = False,
) -> DoctorResult:
    """Ask every node of the cluster, and print each finding as soon as it is known.

    Args:
        planned: the run to come.
        out: folder for ``summary.json`` with the findings; None: none is written.
        tracking: whether to look at MLflow.
        tracking_uri: of MLflow; None: MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.
        seconds: for a node's answer; 5 to 86400.
        verbose: show what Ray logs.

    Raises:
        UserError: no cluster, or a folder can't be written. Failed checks are no error: see `DoctorResult.failed`.
    """
    folder = Folder(out) if out else None
    storage = Folder(planned.storage, option="--storage") if planned.storage else None
    if folder:
        check_own(folder, "doctor", (SUMMARY,))
    connect(verbose)
    if folder:
        own(folder, "doctor", (SUMMARY,))
    printed = []
    with closing(_look(planned, storage, tracking, tracking_uri, seconds)) as each:
        for finding in each:
            printed.append(finding)
            print(f"{finding.status:<8} {finding.check:<10} {finding.text}", flush=True)
    if folder:
        about = {"schema_version": SCHEMA_VERSION, "code_version": __version__}
        folder.write_json(SUMMARY, about | {"checks": [vars(finding) for finding in printed]})
    return DoctorResult(tuple(printed))


def main(argv: list[str]) -> None:
    """Read the command line, and look."""
    options = parser().parse_args(argv)
    workers = Workers(options.workers, options.gpus_per_worker, options.cpus_per_worker)
    result = run(
        PlannedRun(options.storage, options.dataset, options.root, options.split, workers, options.size),
        out=options.out,
        tracking=not options.no_tracking,
        tracking_uri=options.tracking_uri,
        seconds=options.seconds,
        verbose=options.verbose,
    )
    if failed := result.failed:
        raise CommandFailed(
            f"{len(failed)} of {len(result.findings)} checks: {', '.join(failed)}; the lines above say what to do"
        )
    print("nothing is in the way", flush=True)


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s [--storage DIR] [--dataset NAME --data.root PATH] [--workers N] [OPTIONS]"
    parser = Parser(prog=command_line("doctor"), usage=usage, description=__doc__)
    add = parser.add_argument_group("the run to come").add_argument
    add("--storage", metavar="DIR", help="folder for results, to be seen by all nodes (--out of other commands)")
    add("--dataset", type=dataset_name, metavar="NAME", help="look for these images on every node")
    add("--data.root", dest="root", type=absolute_path, metavar="PATH", help="where they are: a path or a URI")
    add("--data.size", dest="size", type=whole(1, MOST_SIDE), metavar="P", help="side of the square that they become")
    add("--split", choices=("train", "test"), default="train", help="[default: train]")
    add("--workers", type=whole(1), default=1, metavar="N", help="DDP workers [default: 1]")
    add("--cpus-per-worker", type=whole(1), default=1, metavar="C", help="[default: 1]")
    add("--gpus-per-worker", type=number(0), default=0, metavar="G", help=">= 0 [default: 0]")
    parser.add_argument_group(CLUSTER).add_argument(
        "--seconds", type=number(5, 86400), default=60, metavar="S", help="for a node's answer [default: 60]"
    )
    group = parser.add_argument_group(RESULTS)
    group.add_argument("--out", metavar="DIR", help="keep the findings there as summary.json")
    add_tracking_options(group)
    group.add_argument("--verbose", action="store_true", help="show what Ray logs")
    return parser


def _look(
    planned: PlannedRun, storage: Folder | None, tracking: bool, tracking_uri: str | None, seconds: float
) -> Generator[Finding, None, None]:
    """Yield the findings, each as soon as it is known."""
    probe = f".doctor-{uuid.uuid4().hex[:8]}"
    if storage:
        storage.make_writable()
        (storage / probe).write_text(DRIVER, "")
    try:
        yield from _look_at_nodes(planned, storage, probe, seconds)
    finally:
        if storage:
            storage.delete(probe)
    if tracking:
        yield _look_at_mlflow(tracking_uri)


def _look_at_nodes(planned: PlannedRun, storage: Folder | None, probe: str, seconds: float) -> Iterator[Finding]:
    from acr_ray.preflight.nodes import ask, exchange, living_nodes, total_resources

    questions = Questions(
        storage.uri if storage else None, probe, planned.dataset, planned.root, planned.split, planned.size
    )
    nodes, workers = living_nodes(), planned.workers
    answers = ask(nodes, questions, seconds)
    yield findings.answered(answers)
    yield findings.same_versions(versions(), answers)
    yield findings.clocks({name: node["skew"] for name, node in answers.items() if "skew" in node})
    yield findings.shared_memory(answers)
    yield findings.temporary(answers)
    yield findings.resources(total_resources(), answers, workers.count, workers.gpus, workers.cpus)
    if storage:
        seen = {name for name, node in nodes.items() if (storage / probe).is_file(f"node-{node['NodeID']}")}
        yield findings.storage(storage.uri, answers, seen)
    if planned.dataset:
        yield findings.data(planned.dataset, planned.root, answers)
    yield exchange(nodes, workers.gpus, seconds)


def _look_at_mlflow(tracking_uri: str | None) -> Finding:
    quieten()
    from acr_ray.tracking.probe import check_mlflow

    try:
        return Finding("mlflow", OK, check_mlflow(tracking_uri or default_uri(Folder("."))))
    except UserError as error:
        return Finding("mlflow", FAILED, str(error))
