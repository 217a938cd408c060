"""The whole path on 1,797 real handwritten digits: train two ways, certify, compare. Called by make demo.

Starts a private Ray head on loopback, submits itself as a Ray job, and stops the head again.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from acr_ray.cli.code_folder import code_folder
from acr_ray.cli.command_line import command_line, jobs_folder
from acr_ray.cli.commands import certify, report, train
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.options import RESULTS
from acr_ray.cli.parser import Parser, whole
from acr_ray.cli.private_head import HeadFailed, PrivateHead
from acr_ray.cli.ray_job import JobLost, run_job
from acr_ray.cli.results import DemoResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings import load_recipe
from acr_ray.storage import Folder, own
from acr_ray.training.workers import CheckpointPolicy, Workers

RECIPES = ("digits-gaussian", "digits")
RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


def run(out: str = "outputs/demo", *, seed: int = 0, n: int = 10_000) -> DemoResult:
    """Start a private Ray head, run the demo on it as a Ray job, and stop the head again.

    Args:
        out: a local folder for all results.
        seed: of everything; >= 0.
        n: noise draws an image.

    Raises:
        UserError: the folder holds something else.
        CommandFailed: the head or the job failed; the same call resumes.
    """
    folder, mlflow_uri = _places(out)
    taken = () if folder.is_file(f"train/{RECIPES[0]}/run.json") else ("train", "certify", "report", "mlflow.db")
    own(folder, "demo", taken)  # a demo that was interrupted before it wrote run.json resumes
    print("starting a private Ray head on 127.0.0.1 with token authentication", flush=True)
    module = "jobs.demo" if jobs_folder() else "acr_ray demo"
    words = [*module.split(), "--inside", "--out", str(folder), "--seed", str(seed), "--n", str(n)]
    entrypoint = shlex.join(["python", "-m", *words])
    try:
        # A process of its own on the head, as any job of a user: this one leads no Ray.
        with PrivateHead(cpus=2, alone=True) as head, code_folder() as code:
            print(f"$ ray job submit --address {head.dashboard} --working-dir {code} -- {entrypoint}", flush=True)
            succeeded = run_job(head.dashboard, head.token, entrypoint, code)
    except (HeadFailed, JobLost) as error:
        raise CommandFailed(f"{error}; run make demo again to resume") from error
    if not succeeded:
        raise CommandFailed("the job did not finish; run make demo again to resume")
    mlflow = Path(sys.executable).with_name("mlflow")
    print(f"MLflow: {mlflow} ui --backend-store-uri {mlflow_uri}")
    return DemoResult(folder, mlflow_uri)


def run_inside(out: str, *, seed: int = 0, n: int = 10_000) -> DemoResult:
    """Train, certify and compare on the cluster of RAY_ADDRESS; skip each step whose results are there.

    Args and errors are those of `run`.
    """
    folder, mlflow_uri = _places(out)

    def options(name: str) -> RunOptions:
        return RunOptions(out=f"{folder}/{name}", tracking_uri=mlflow_uri)

    certified = []
    for recipe in RECIPES:
        trained = train.run(
            load_recipe(recipe),
            options(f"train/{recipe}"),
            workers=Workers(2),
            seed=seed,
            policy=CheckpointPolicy(every=10),
        )
        certify.run(
            str(trained.folder),
            options(f"certify/{recipe}"),
            settings={"n": n, "alpha": 0.001, "radii": RADII, "seed": seed},
        )
        certified.append(f"{recipe}={folder}/certify/{recipe}")
    report.run(certified, options("report"), radii=RADII)
    return DemoResult(folder, mlflow_uri)


def main(argv: list[str]) -> None:
    """Read the command line, and run the demo."""
    options = parser().parse_args(argv)
    (run_inside if options.inside else run)(options.out, seed=options.seed, n=options.n)


def parser() -> Parser:
    """Make the command's parser."""
    parser = Parser(prog=command_line("demo"), usage="%(prog)s [OPTIONS]", description=__doc__)
    add = parser.add_argument_group("noise and guarantee").add_argument
    add("--n", type=whole(10, 10**9), default=10_000, metavar="N", help="noise draws an image [default: 10000]")
    add("--seed", type=whole(0), default=0, metavar="S", help="of everything [default: 0]")
    parser.add_argument_group("cluster").add_argument(
        "--inside", action="store_true", help="run here and now, on the cluster of RAY_ADDRESS"
    )
    parser.add_argument_group(RESULTS).add_argument(
        "--out", metavar="DIR", default="outputs/demo", help="results [default: outputs/demo]"
    )
    return parser


def _places(out: str) -> tuple[Folder, str]:
    """The results folder and the MLflow store in it."""
    path = Path(out).expanduser().absolute()
    return Folder(path), f"sqlite:///{path}/mlflow.db"
