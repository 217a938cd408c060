"""jobs.audit at work."""

from __future__ import annotations

import argparse
from typing import Any

from acr_ray.certification import certificates
from acr_ray.certification.audit import Audited, merge, read_run, redraw
from acr_ray.certification.procedure import CERTIFIED
from acr_ray.certification.statement import statements
from acr_ray.settings import UserError
from acr_ray.smoothing.bounds import radius
from acr_ray.storage import Folder, claim
from acr_ray.storage.run_record import look
from jobs._main import JobFailed
from jobs._run import out_folder

SCHEMA_VERSION = 1
OWNED = (certificates.PARQUET, certificates.TSV, "summary.json")


def run(options: argparse.Namespace) -> None:
    if options.redraw and not options.checkpoint:
        raise UserError("--redraw: needs the model; give --checkpoint CHECKPOINT")
    out, folders = out_folder(options), [Folder(run, option="RUN") for run in options.runs]
    if str(out) in map(str, folders):
        raise UserError(f"--out {out}: is one of the RUNs; an audit goes to a folder of its own")
    runs = [read_run(folder, options.alpha, options.bound) for folder in folders]
    whole_run = merge(runs) if len(runs) > 1 else runs[0]
    if not whole_run.store.finished:
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
    certificates.write(out, certificates.certificate_table(whole_run.plan, whole_run.store))
    out.write_json("summary.json", summary)
    for text in summary["statements"]:
        print(text)
    print(f"audited: {summary['images']} of {summary['planned_images']} images: {out}/{certificates.PARQUET}")
    if differing:
        raise JobFailed(f"{differing} lines of the ledgers are not what the model draws: see above")


def _numbers(run: Audited, rho: float) -> dict[str, Any]:
    """What is certified, and what all certificates say together. Images without a certificate count as not robust."""
    settings, finished = run.plan.settings, run.store.finished
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
    bound = {"bound": run.store.procedure.rule.name, "evaluations": run.store.noise_draws}
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
        blocks = f"blocks {each.block_range.first} to {each.block_range.stop - 1}"
        print(f"{each.image} {each.block_range.phase} {blocks}: {said}", flush=True)
    return sum(not each.agrees for each in found)
