"""jobs.certify at work."""

from __future__ import annotations

import argparse
import time

from acr_ray.certification import certificates
from acr_ray.models import load_checkpoint, state_bytes
from acr_ray.reporting import build_report, open_source
from acr_ray.reporting.summary import certify_numbers
from acr_ray.smoothing.bounds import round_down
from acr_ray.smoothing.engine import BrokenModelError
from acr_ray.storage.summaries import read_summary
from acr_ray.telemetry.watching import CertificationMeters
from acr_ray.tracking.runs import numbers, resolve_checkpoint, with_run
from jobs._block import with_block
from jobs._certify_plan import plan_of, settings_for
from jobs._main import JobFailed
from jobs._page import log_page
from jobs._progress import CertifyLines, Waiting, count
from jobs._ready import actors_fit
from jobs._run import begin, out_folder, tracking_uri

SCHEMA_VERSION = 1
OWNED = ("ledger", "plan.json", "images.parquet", certificates.PARQUET, certificates.TSV, "summary.json")


def run(options: argparse.Namespace) -> None:
    out = out_folder(options)
    location, training_run = resolve_checkpoint(options.checkpoint, tracking_uri(options, out))
    model, card = load_checkpoint(location)
    settings, images = settings_for(card, options)
    settings = with_block(settings, options, out, card, model)
    plan = plan_of(settings, images, card, model)
    name = f"certify {(card.recipe or {}).get('name', card.architecture)}"
    tags = {"acr_ray.training_run_id": training_run} if training_run else {}
    run = begin(options, out, "certify", plan.identity(), OWNED, name, tags, lambda: actors_fit(options))
    if run is None:
        print(f"done before: {out}/{certificates.PARQUET}")
        return
    run.tracker.params(
        {**plan.identity(), "radii": settings.radii, "checkpoint": options.checkpoint, "training_run_id": training_run}
    )
    run.tracker.uses_model_of(training_run)
    run.tracker.dataset(f"{images.dataset}-{settings.split}", plan.data, str(settings.root), "certification")

    def work() -> None:
        if run.done:
            return
        from acr_ray.certification.coordinator import CertificationProgress, Coordinator, SamplersLost, StorageLost
        from acr_ray.certification.sampler import Arithmetic
        from acr_ray.certification.sampler_pool import Actors, RaySamplerPool

        plan.save(out)
        ledger, store = plan.open(out)
        started, before = time.monotonic(), store.noise_draws
        if settings.sigma != card.sigma:
            print(f"warning: certified at sigma {settings.sigma}, but trained at {card.sigma}")
        rule = "" if settings.stopping == "fixed" else f", stopping by {settings.stopping}"
        print(
            f"certify {options.chosen}, n0 {settings.n0}, n {settings.n}{rule}, alpha {settings.alpha}, in {out}",
            flush=True,
        )
        if before:
            print(f"going on: {before:,} noisy samples are in the ledger", flush=True)
        label = f"{name}:{out.uri.rsplit('/', 1)[-1]}"
        actors = Actors.fitting(options.actors, options.gpus_per_actor)
        arithmetic = Arithmetic.of(settings)
        pool = RaySamplerPool(card, state_bytes(model), settings.sigma, settings.seed, arithmetic, actors, label)
        lines, meters = CertifyLines(), CertificationMeters(label, before)
        coordinator = Coordinator(ledger, store, images, pool, actors.low, actors.high, settings.block)
        waiting.begin(f"starting {count(actors.high, 'actor')}")

        def told(standing: CertificationProgress) -> None:
            if standing.rate:
                waiting.end()
            lines(standing)
            meters(standing)

        try:
            coordinator.run(told)
        except (SamplersLost, StorageLost, BrokenModelError) as error:
            raise JobFailed(f"{error}; see the actors' log (--verbose); the same command goes on") from error
        certificates.write(out, certificates.certificate_table(plan, store))
        row = build_report([open_source((name, f"{out}/{certificates.PARQUET}"))], settings.radii, False).rows[0]
        given = {k: getattr(settings, k) for k in ("sigma", "n0", "n", "alpha", "seed", "stopping")}
        spent = {"evaluations": store.noise_draws, "evaluations_this_time": store.noise_draws - before}
        summary = {"schema_version": SCHEMA_VERSION, **certify_numbers(row, settings.radii), **given, **spent}
        summary |= {"evaluations_wasted": coordinator.wasted, "seconds": round(time.monotonic() - started, 3)}
        summary |= {"model_sha256": card.sha256, "settings_sha256": settings.sha256, "data_fingerprint": plan.data}
        summary |= {"chosen": options.chosen, "bound": store.procedure.rule.name, "arithmetic": plan.arithmetic}
        out.write_json("summary.json", summary | {"mlflow_run_id": run.tracker.run_id, "training_run_id": training_run})

    with Waiting() as waiting:
        with_run(run.tracker, work)
    summary = read_summary(out, "certify")
    run.tracker.metrics(numbers(summary))
    run.tracker.files(out, [certificates.PARQUET, certificates.TSV, "summary.json"])
    log_page(run.tracker, [(name, f"{out}/{certificates.PARQUET}")], settings.radii)
    run.end()
    at_least = "at least " * bool(summary.get("acr_is_lower"))  # of draws that stopped early
    print(
        f"certified: ACR {at_least}{round_down(summary['acr'], 4)}, "
        f"hard share {100 * summary['hard_share']:.1f} %: {out}",
        flush=True,
    )
