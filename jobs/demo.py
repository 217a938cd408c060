"""The whole path on 1,797 real handwritten digits: train two ways, certify, compare. Called by make demo.

Starts a private Ray head on loopback, submits itself as a Ray job, and stops the head again.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from acr_ray.storage import Folder, own
from cluster.code import code_folder
from cluster.head import HeadFailed, PrivateHead
from jobs._main import JobFailed, Parser, entry, whole

RECIPES = ("digits-gaussian", "digits")
CHATTER = re.compile(
    r"\S+ \S+\t[A-Z]+ (cli|sdk|dashboard_sdk|packaging|working_dir|job_manager)\.py|Running entrypoint"
)
RADII = "0,0.25,0.5,0.75,1"


def parser() -> Parser:
    found = Parser(prog="python -m jobs.demo", description=__doc__)
    found.add_argument("--out", metavar="DIR", default="outputs/demo", help="results [default: outputs/demo]")
    found.add_argument("--seed", type=whole(0), default=0, metavar="S", help="of everything [default: 0]")
    found.add_argument(
        "--n", type=whole(10, 10**9), default=10_000, metavar="N", help="draws an image [default: 10000]"
    )
    found.add_argument("--inside", action="store_true", help="run here and now, on the cluster of RAY_ADDRESS")
    return found


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    out = Path(options.out).expanduser().absolute()
    store = f"sqlite:///{out}/mlflow.db"
    if options.inside:
        pipeline(out, options.seed, options.n, store)
        return
    taken = () if (out / "train" / RECIPES[0] / "run.json").is_file() else ("train", "certify", "report", "mlflow.db")
    own(Folder(out), "demo", taken)  # a demo of an earlier version, without run.json, goes on
    print("starting a private Ray head on 127.0.0.1 with token authentication", flush=True)
    try:
        with PrivateHead(cpus=2, alone=True) as head, code_folder() as code_alone:
            inside = ["--inside", "--out", str(out), "--seed", str(options.seed), "--n", str(options.n)]
            command = ["ray", "job", "submit", "--address", head.dashboard, "--working-dir", str(code_alone)]
            command += ["--", "python", "-m", "jobs.demo", *inside]
            print(f"$ {shlex.join(command)}", flush=True)
            code = follow(command, head.environment)
    except HeadFailed as error:
        raise JobFailed(str(error)) from error
    if code:
        raise JobFailed("the job did not finish; run make demo again, it goes on where it was")
    mlflow = Path(sys.executable).with_name("mlflow")
    print(f"MLflow: {mlflow} ui --backend-store-uri {store}")


def follow(command: list[str], environment: dict[str, str]) -> int:
    """Run ``ray job submit`` and pass on what the job prints, without the client's own chatter unless it fails."""
    chatter: list[str] = []
    with subprocess.Popen(
        command, env=environment, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as client:  # fmt: skip
        for line in client.stdout:
            if CHATTER.match(line):
                chatter.append(line)
            else:
                print(line, end="", flush=True)
    if client.returncode:
        print("".join(chatter[-10:]), file=sys.stderr)
    return client.returncode


def pipeline(out: Path, seed: int, n: int, store: str) -> None:
    """Train, certify and compare; each step is skipped where its results are there."""
    # Imported here: the process that only starts the head has no use for torch.
    from jobs import certify, report, train

    tracking = ["--tracking-uri", store]
    for recipe in RECIPES:
        run = str(out / "train" / recipe)
        train.main([recipe, "--out", run, "--workers", "2", "--checkpoint-every", "10", "--seed", str(seed), *tracking])
        certificates = ["--out", str(out / "certify" / recipe), "--n", str(n), "--alpha", "0.001", "--radii", RADII]
        certify.main([run, *certificates, "--seed", str(seed), *tracking])
    sources = [f"{recipe}={out / 'certify' / recipe}" for recipe in RECIPES]
    report.main([*sources, "--out", str(out / "report"), "--radii", RADII, *tracking])


if __name__ == "__main__":
    entry(main)
