"""An audit: from ledgers to certificates, with lines drawn again if the model is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acr_ray.certification import certificates
from acr_ray.certification.audit import Audited, merge, read_run
from acr_ray.certification.pool import Machine
from acr_ray.certification.redrawing import Comparison, compare, redraw
from acr_ray.certification.statement import statements
from acr_ray.cli.drivers.drawn_by import drawn_by, told_if_other
from acr_ray.cli.results import AuditResult
from acr_ray.cli.session import RunOptions
from acr_ray.formats.files import CERTIFICATES, CERTIFICATES_TSV, SUMMARY
from acr_ray.formats.states import Outcome
from acr_ray.settings import UserError
from acr_ray.settings.imports import ImportChoices
from acr_ray.smoothing.bounds import radius
from acr_ray.storage import Folder, open_run
from acr_ray.storage.run_record import find_run

SCHEMA_VERSION = 1
OWNED = (CERTIFICATES, CERTIFICATES_TSV, SUMMARY)


@dataclass(frozen=True)
class Redrawing:
    """Which lines of a ledger are drawn again, and with what.

    Attributes:
        lines: how many of each ledger; >= 1.
        seed: of their choice.
        checkpoint: the model.
        root: folder of the images; None: they come with the package.
        class_map: file with the names of class folders.
        choices: which network it is, if the checkpoint does not say.
    """

    lines: int
    seed: int
    checkpoint: str
    root: str | None
    class_map: str | None
    dataset: str | None
    choices: ImportChoices


def redrawing_of(
    lines: int | None,
    seed: int,
    checkpoint: str | None,
    root: str | None,
    class_map: str | None,
    dataset: str | None,
    choices: ImportChoices | None,
) -> Redrawing | None:
    """Return what is drawn again; None if no lines or no model are named."""
    if not lines or not checkpoint:
        return None
    return Redrawing(lines, seed, checkpoint, root, class_map, dataset, choices or ImportChoices())


def audit(
    run_folders: Sequence[str],
    options: RunOptions,
    changes: Mapping[str, Any],
    rho: float,
    redrawing: Redrawing | None,
) -> AuditResult:
    """Derive certificates anew; see `acr_ray.cli.commands.audit.run`.

    Args:
        changes: ``alpha``, ``bound`` and ``certificate``; None: those of the runs.
    """
    out, folders = options.folder(), [Folder(run, option="RUN") for run in run_folders]
    if str(out) in map(str, folders):
        raise UserError(f"--out {out}: is one of the RUNs; an audit goes to a folder of its own")
    runs = [read_run(folder, **changes) for folder in folders]
    whole_run = merge(runs) if len(runs) > 1 else runs[0]
    if not whole_run.store.finished:
        raise UserError(f"RUN {whole_run.where}: not one image is finished")
    given = {name: value for name, value in changes.items() if name != "certificate" or value is not None}
    identity = {"runs": [run.plan.identity() for run in runs], **given}
    find_run(out, "audit", identity, overwrite=options.overwrite, owned=OWNED)
    redrawn: list[Comparison] = []
    if redrawing:
        redrawn = [
            redraw_lines(run, folder, redrawing, drawn_by(folder)) for run, folder in zip(runs, folders, strict=True)
        ]
    open_run(out, "audit", identity, overwrite=options.overwrite, owned=OWNED)
    summary = {"schema_version": SCHEMA_VERSION, **audited_numbers(whole_run, rho)}
    if redrawing:
        summary["redrawn"] = {
            "lines": redrawing.lines,
            "differing": sum(one.lines_differing for one in redrawn),
            "answers": sum(one.answers for one in redrawn),
            "answers_differing": sum(one.answers_differing for one in redrawn),
        }
    machines = [machine for folder in folders for machine in drawn_by(folder)]
    certificates.write(out, certificates.certificate_table(whole_run.plan, whole_run.store, machines))
    out.write_json(SUMMARY, summary)
    for text in summary["statements"]:
        print(text)
    print(f"audited: {summary['images']} of {summary['planned_images']} images: {out}/{CERTIFICATES}")
    return AuditResult(out, summary, sum(one.lines_differing for one in redrawn if one.wrong))


def audited_numbers(run: Audited, rho: float) -> dict[str, Any]:
    """What is certified, and what all certificates say together. Images without a certificate count as not robust."""
    settings, finished = run.plan.settings, run.store.finished
    radii = [0.0] * len(run.plan.names)
    correct = [False] * len(run.plan.names)
    for position, verdict in finished.items():
        radii[position] = float(radius(verdict.p_lower, settings.sigma))
        correct[position] = verdict.outcome == Outcome.CERTIFIED and verdict.predicted == int(run.plan.labels[position])
    stated = statements(radii, correct, settings.alpha, settings.radii, rho)
    right = [r for r, c in zip(radii, correct, strict=True) if c]
    share = {f"{s.radius:g}": sum(r >= s.radius for r in right) / len(radii) for s in stated}
    given = {k: getattr(settings, k) for k in ("sigma", "alpha", "stopping", "certificate")}
    images = {"images": len(finished), "planned_images": len(radii), "incomplete": len(finished) < len(radii)}
    bound = {"bound": run.store.procedure.rule.name, "evaluations": run.store.noise_draws}
    texts = [str(s) for s in stated]
    return {**images, **given, **bound, "certified_accuracy": share, "rho": rho, "statements": texts}


def redraw_lines(run: Audited, folder: Folder, redrawing: Redrawing, machines: Sequence[Machine] = ()) -> Comparison:
    """Draw lines of a run again, and print how they compare.

    Args:
        folder: of the run.
        machines: that drew it, if they are known.
    """
    from acr_ray.certification.machine import machine_of
    from acr_ray.cli.drivers.redraw import arithmetic_here, drawer  # loads torch, which an audit alone needs not

    r, settings = redrawing, run.plan.settings
    device = arithmetic_here(settings).device
    draw = drawer(run, r.checkpoint, r.root, r.class_map, r.dataset, r.choices, folder)
    if other := told_if_other(machine_of(device), list(machines)):
        print(other, flush=True)
    lines = redraw(run, folder, redrawing.lines, redrawing.seed, draw)
    for line in lines:
        outcome = "agrees" if line.agrees else f"DIFFERS: written {line.written}, drawn {line.drawn}"
        blocks = line.block_range
        print(f"{line.image} {blocks.phase} blocks {blocks.first} to {blocks.stop - 1}: {outcome}", flush=True)
    compared = compare(lines, settings, device)
    print(compared.told, flush=True)
    return compared
