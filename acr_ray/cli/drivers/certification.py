"""A certification: from a checkpoint to certificates, summary and MLflow run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn

from acr_ray.certification import certificates
from acr_ray.certification.joint_store import JointCountStore
from acr_ray.certification.pool import machines_as_json
from acr_ray.certification.run_plan import RunPlan
from acr_ray.cli.drivers.block_size import with_fitting_block, with_measured_block
from acr_ray.cli.drivers.certification_inputs import (
    CertificationInputs,
    Subject,
    info_but_constants,
    make_plan,
    open_checkpoint,
    open_inputs,
    open_split,
)
from acr_ray.cli.drivers.drawn_by import noted
from acr_ray.cli.drivers.int8 import compared, int8_of_run
from acr_ray.cli.drivers.looking import look
from acr_ray.cli.drivers.mlflow_reports import log_page, p_a_quantiles
from acr_ray.cli.drivers.noise import rounded_images, with_fitting_noise, with_noise_of_run, with_shared_passes
from acr_ray.cli.drivers.samplers import Samplers
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.notebook import certify_progress
from acr_ray.cli.progress import Waiting, count
from acr_ray.cli.results import CertifyResult
from acr_ray.cli.session import RunOptions, TrackedRun, open_tracked_run
from acr_ray.data import ImageSet
from acr_ray.formats.files import CERTIFICATES, CERTIFICATES_TSV, INT8, LEDGER, PLAN, PLAN_IMAGES, SUMMARY
from acr_ray.models import ModelCard
from acr_ray.models.in_process import described, to_send
from acr_ray.reporting import build_report, open_source
from acr_ray.reporting.cell_text import points_text
from acr_ray.reporting.summary import certify_numbers
from acr_ray.settings import CertifySettings
from acr_ray.settings.imports import ImportChoices
from acr_ray.smoothing.bounds import round_down
from acr_ray.smoothing.distribution_rule import FROM
from acr_ray.smoothing.engine import BrokenModelError
from acr_ray.smoothing.run_noise import levels_of
from acr_ray.storage import Folder
from acr_ray.storage.summaries import read_summary
from acr_ray.telemetry.watching import CertificationMeters
from acr_ray.tracking.runs import numbers, with_run

SCHEMA_VERSION = 1
OWNED = (INT8, LEDGER, PLAN, PLAN_IMAGES, CERTIFICATES, CERTIFICATES_TSV, SUMMARY)


def certify(
    checkpoint: str | nn.Module | tuple[nn.Module, ModelCard],
    options: RunOptions,
    changes: Mapping[str, Any],
    samplers: Samplers,
    choices: ImportChoices,
    *,
    measure_block: bool = False,
    checks: bool = True,
    images: ImageSet | None = None,
    class_names: tuple[str, ...] | None = None,
) -> CertifyResult:
    """Certify, or resume the run that the results folder holds; see `acr_ray.cli.commands.certify.run`.

    Args:
        checkpoint: as the user names it; or the module itself, with its card if there is one.
        samplers: where the drawing is done.
        images: the split to certify, where the user has it at hand; None: as ``changes`` name it.
        class_names: of a module's logits; None: the data's.
    """
    out = options.folder()
    device = samplers.device
    changes = with_noise_of_run(changes, options, out)
    if isinstance(checkpoint, str):
        uri = options.mlflow_uri(out)
        subject = open_checkpoint(checkpoint, uri, choices, {"device": device, **changes}, images)
    elif isinstance(checkpoint, tuple):
        subject = Subject(*checkpoint, checkpoint[1].architecture)
    else:
        images = open_split(changes) if images is None else images
        info = info_but_constants(images)
        info = info if class_names is None else replace(info, class_names=class_names)
        subject = Subject(*described(checkpoint, info, choices.normalization), type(checkpoint).__name__)
    inputs = open_inputs(subject.card, subject.named, changes, device, images)
    inputs = replace(inputs, settings=with_fitting_noise(inputs.settings, "noise" in changes))
    int8 = int8_of_run(subject, inputs.settings, images, None if options.overwrite else out)
    if measure_block:
        block = with_measured_block(inputs.settings, options, out, subject.card, subject.model, samplers.gpus, int8)
    else:
        block = with_fitting_block(inputs.settings, options, out, subject.card, subject.model, samplers)
    asked, inputs = inputs.settings.block, replace(inputs, settings=block)
    inputs = replace(inputs, settings=with_shared_passes(inputs.settings, changes, options, out))
    return _certify(subject, inputs, int8, options, out, samplers, checks, None if measure_block else asked)


def _certify(
    subject: Subject,
    inputs: CertificationInputs,
    int8: bytes | None,
    options: RunOptions,
    out: Folder,
    samplers: Samplers,
    checks: bool,
    block_asked: int | None,
) -> CertifyResult:
    card, settings, images, training_run = subject.card, inputs.settings, inputs.images, subject.training_run
    plan = make_plan(settings, images, card, subject.model, int8)
    name = f"certify {(card.recipe or {}).get('name', card.architecture)}"
    tags = {"acr_ray.training_run_id": training_run} if training_run else {}
    opened = open_tracked_run(
        options,
        out,
        "certify",
        plan.identity(),
        OWNED,
        name,
        tags,
        check_room=lambda: samplers.check_room(options.verbose),
    )
    if opened is None:
        print(f"done before: {out}/{CERTIFICATES}")
        return CertifyResult(out, read_summary(out, "certify"), done_before=True)
    if block_asked not in (None, settings.block):
        opened.remember(block_asked=block_asked)
    tracker = opened.tracker
    tracker.params(
        {
            **settings.flat(),
            **plan.identity(),
            "radii": settings.radii,
            "checkpoint": subject.named,
            "training_run_id": training_run,
        }
    )
    tracker.uses_model_of(training_run)
    tracker.dataset(f"{images.dataset}-{settings.split}", plan.data, str(settings.root), "certification")

    def work() -> None:
        if not opened.computed:
            summary = _sample(plan, inputs, subject, int8, opened, name, samplers, checks)
            out.write_json(SUMMARY, {**summary, "mlflow_run_id": tracker.run_id, "training_run_id": training_run})

    with_run(tracker, work)
    summary = read_summary(out, "certify")
    source = open_source((name, f"{out}/{CERTIFICATES}"))
    tracker.metrics({**numbers(summary), **p_a_quantiles(source.distribution)}, linked=True)
    tracker.files(out, [CERTIFICATES, CERTIFICATES_TSV, SUMMARY])
    log_page(tracker, [(name, f"{out}/{CERTIFICATES}")], settings.radii)
    opened.close()
    _print_error(summary)
    at_least = "at least " * bool(summary.get("acr_is_lower"))  # of draws that stopped early
    print(
        f"certified: ACR {at_least}{round_down(summary['acr'], 4)}, "
        f"hard share {100 * summary['hard_share']:.1f} %: {out}",
        flush=True,
    )
    return CertifyResult(out, summary, done_before=opened.computed)


def _sample(
    plan: RunPlan,
    inputs: CertificationInputs,
    subject: Subject,
    int8: bytes | None,
    opened: TrackedRun,
    name: str,
    samplers: Samplers,
    checks: bool,
) -> dict[str, Any]:
    """Draw what the ledger lacks, and write the certificates. Returns the summary, but for the ids of runs."""
    from acr_ray.certification.coordinator import CertificationProgress, Coordinator, SamplersLost, StorageLost

    out, settings, card = opened.out, plan.settings, subject.card
    if int8 is not None:
        out.write_bytes(INT8, int8)
    plan.save(out)
    ledger, store = plan.open(out)
    started, before = time.monotonic(), store.noise_draws
    _print_begin(settings, inputs.chosen, card, before, str(out))
    rounded = rounded_images(settings, inputs.images)
    if checks and not before:  # a run that goes on has been looked at
        opened.remember(checks=look(subject, inputs))
    if int8 is not None and "int8" not in opened.record:
        opened.remember(int8=compared(subject, inputs, int8))
    label = f"{name}:{out.uri.rsplit('/', 1)[-1]}"
    state = to_send(card, subject.model)
    lines = certify_progress()
    meters = CertificationMeters(label, before) if samplers.on_ray else None  # Ray exports them
    with samplers.pool(card, state, settings, label, int8) as (pool, low, high), Waiting() as waiting:
        rows, shared = settings.rows_of_a_pass, settings.pass_rows is not None
        coordinator = Coordinator(ledger, store, inputs.images, pool, low, high, rows, shared=shared)
        waiting.begin(f"starting {count(high, 'actor')}" if samplers.on_ray else "drawing in this process")

        def note_machines() -> None:
            opened.remember(drawn_by=machines_as_json([*noted(opened.record), *coordinator.machines]))

        def on_progress(progress: CertificationProgress) -> None:
            with suppress(OSError):  # while the storage fails the coordinator waits for it
                note_machines()
            if progress.rate:
                waiting.end()
            lines(progress)
            if meters is not None:
                meters(progress)

        try:
            coordinator.run(on_progress)
        except (SamplersLost, StorageLost, BrokenModelError) as error:
            raise CommandFailed(
                f"{error}; see the actors' log (--verbose); run the same command again to resume"
            ) from error
        note_machines()
        certificates.write(out, certificates.certificate_table(plan, store, noted(opened.record)))
    row = build_report([open_source((name, f"{out}/{CERTIFICATES}"))], settings.radii, False).rows[0]
    summary = {"schema_version": SCHEMA_VERSION, **certify_numbers(row, settings.radii)}
    summary |= {k: getattr(settings, k) for k in ("sigma", "n0", "n", "alpha", "seed", "stopping")}
    if isinstance(store, JointCountStore):
        summary |= {"band": settings.band, "band_upto": settings.band_upto, "p_a_error_upto": store.error}
    summary |= {"evaluations": store.noise_draws, "evaluations_this_time": store.noise_draws - before}
    summary |= {"evaluations_wasted": coordinator.wasted, "seconds": round(time.monotonic() - started, 3)}
    summary |= {"model_sha256": card.sha256, "settings_sha256": settings.sha256, "data_fingerprint": plan.data}
    summary |= {"chosen": inputs.chosen, "bound": store.procedure.rule.name, "arithmetic": plan.arithmetic}
    noise = plan.noise()
    summary |= {"noise": noise.name, "step": noise.step, "grade": noise.grade, "noise_alpha": noise.share}
    summary |= {"drawn_by": machines_as_json(noted(opened.record))}
    summary |= {"int8": opened.record.get("int8")} if int8 is not None else {}
    return summary | {"rounded": rounded, "checks": opened.record.get("checks")}


def _print_error(summary: Mapping[str, Any]) -> None:
    """Say how well a run that drew for the distribution of p_A knows it."""
    if summary.get("stopping") == "distribution":
        asked, found = summary["band"], summary["p_a_error_upto"]
        limit = f" ({points_text(asked)} were asked for; --n {summary['n']} ends the run)" if found > asked else ""
        print(
            f"distribution of p_A: the share of these {summary['images']} images with p_A >= x is known to "
            f"{points_text(found)} points for x from {FROM:g} to {summary['band_upto']:g}, with probability "
            f"{1 - summary['alpha']:g}{limit}"
        )


def _print_begin(settings: CertifySettings, chosen: str, card: ModelCard, before: int, out: str) -> None:
    if settings.sigma != card.sigma:
        trained = "the sigma of its training is unknown" if card.sigma is None else f"but trained at {card.sigma}"
        print(f"warning: certified at sigma {settings.sigma}, {trained}")
    rule = "" if settings.stopping == "fixed" else f", stopping by {settings.stopping}"
    noise = "float noise" if settings.noise == "float" else f"lattice noise of step 1/{levels_of(settings)}"
    kind = "" if settings.certificate == "one-class" else f", {settings.certificate} certificates"
    print(
        f"certify {chosen}, n0 {settings.n0}, n {settings.n}{rule}{kind}, alpha {settings.alpha}, {noise}, in {out}",
        flush=True,
    )
    if before:
        print(f"resuming: {before:,} noise draws are in the ledger", flush=True)
