"""Audit certifications from their ledgers alone: python -m jobs.audit RUN [RUN …] --out DIR [--alpha A] [--redraw K]

RUN is a folder of jobs.certify. Radii are derived anew (for another --alpha or --bound: of runs with a fixed n);
several RUNs of one classifier are merged (other images, or more draws of the same). --redraw K draws K lines of the
ledger again with --checkpoint and compares counts. Leaves certificates.parquet, certificates.tsv, summary.json.
"""

from __future__ import annotations

from typing import Any

from acr_ray.certification import certificates
from acr_ray.certification.audit import Audited, merge, read_run, redraw
from acr_ray.certification.course import CERTIFIED
from acr_ray.certification.statement import statements
from acr_ray.settings import UserError
from acr_ray.smoothing.bounds import radius
from acr_ray.storage import Folder, claim
from acr_ray.storage.claim import look
from jobs._main import JobFailed, Parser, entry, number, whole
from jobs._run import out_folder

SCHEMA_VERSION = 1
OWNED = (certificates.PARQUET, certificates.TSV, "summary.json")


def parser() -> Parser:
    found = Parser(prog="python -m jobs.audit", description=__doc__)
    found.add_argument("runs", metavar="RUN", nargs="+", help="folders of jobs.certify")
    found.add_argument("--out", metavar="DIR", help="where results go: a path, or a URI such as s3://… [required]")
    found.add_argument("--overwrite", action="store_true", help="start anew where DIR holds another audit")
    found.add_argument("--alpha", type=number(1e-300, below=1), help="another error probability [default: the runs']")
    found.add_argument("--bound", choices=("clopper-pearson", "randomized"), help="another bound [default: the runs']")
    found.add_argument(
        "--rho", type=number(1e-300, below=1), default=0.001, help="of the statement on all images [0.001]"
    )
    found.add_argument("--redraw", type=whole(1), metavar="K", help="draw K lines of each ledger again")
    found.add_argument("--redraw-seed", type=whole(0), default=0, metavar="S", help="of the choice of lines [0]")
    found.add_argument("--checkpoint", metavar="CHECKPOINT", help="the model, for --redraw")
    found.add_argument("--data.root", dest="root", metavar="PATH", help="the images, for --redraw; digits need none")
    found.add_argument(
        "--data.class_map", dest="class_map", metavar="FILE", help="names of class folders, for --redraw"
    )
    return found


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    if options.redraw and not options.checkpoint:
        raise UserError("--redraw: needs the model; give --checkpoint CHECKPOINT")
    out, folders = out_folder(options), [Folder(run, option="RUN") for run in options.runs]
    if str(out) in map(str, folders):
        raise UserError(f"--out {out}: is one of the RUNs; an audit goes to a folder of its own")
    runs = [read_run(folder, options.alpha, options.bound) for folder in folders]
    whole_run = merge(runs) if len(runs) > 1 else runs[0]
    if not whole_run.tally.finished:
        raise UserError(f"RUN {whole_run.where}: not one image is finished")
    identity = {"runs": [run.plan.identity() for run in runs], "alpha": options.alpha, "bound": options.bound}
    look(out, "audit", identity, overwrite=options.overwrite, owned=OWNED)
    differing = 0
    for run, folder in zip(runs, folders, strict=True) if options.redraw else ():
        differing += _redraw(run, folder, options)
    claim(out, "audit", identity, overwrite=options.overwrite, owned=OWNED)
    summary = {"schema_version": SCHEMA_VERSION, **_numbers(whole_run, options.rho)}
    if options.redraw:
        summary["redrawn"] = {"lines": options.redraw, "differing": differing}
    certificates.write(out, certificates.certificate_table(whole_run.plan, whole_run.tally))
    out.write_json("summary.json", summary)
    for text in summary["statements"]:
        print(text)
    print(f"audited: {summary['images']} of {summary['planned_images']} images: {out}/{certificates.PARQUET}")
    if differing:
        raise JobFailed(f"{differing} lines of the ledgers are not what the model draws: see above")


def _numbers(run: Audited, rho: float) -> dict[str, Any]:
    """What is certified, and what all certificates say together. Images without a certificate count as not robust."""
    settings, finished = run.plan.settings, run.tally.finished
    radii = [0.0] * len(run.plan.names)
    correct = [False] * len(run.plan.names)
    for position, verdict in finished.items():
        radii[position] = float(radius(verdict.p_lower, settings.sigma))
        correct[position] = verdict.outcome == CERTIFIED and verdict.predicted == int(run.plan.labels[position])
    said = statements(radii, correct, settings.alpha, settings.radii, rho)
    right = [(r, c) for r, c in zip(radii, correct, strict=True) if c]
    share = {f"{s.radius:g}": sum(r >= s.radius for r, _ in right) / len(radii) for s in said}
    given = {k: getattr(settings, k) for k in ("sigma", "alpha", "stopping")}
    images = {"images": len(finished), "planned_images": len(radii), "incomplete": len(finished) < len(radii)}
    bound = {"bound": run.tally.course.rule.name, "evaluations": run.tally.evaluations}
    return {**images, **given, **bound, "certified_accuracy": share, "rho": rho, "statements": [str(s) for s in said]}


def _redraw(run: Audited, folder: Folder, options: Any) -> int:
    from jobs._redraw import drawer

    found = redraw(
        run,
        folder,
        options.redraw,
        options.redraw_seed,
        drawer(run, options.checkpoint, options.root, options.class_map),
    )
    for each in found:
        said = "agrees" if each.agrees else f"DIFFERS: written {each.written}, drawn {each.drawn}"
        print(f"{each.image} {each.span.phase} blocks {each.span.first} to {each.span.stop - 1}: {said}", flush=True)
    return sum(not each.agrees for each in found)


if __name__ == "__main__":
    entry(main)
