"""Certify a classifier: python -m jobs.certify CHECKPOINT --out DIR [--n N] [--every K] [--actors K] …

CHECKPOINT is a train job's folder, its checkpoint/, or runs:/RUN_ID. The same command again goes on where it was.
"""

from __future__ import annotations

import time

from acr_ray.certification import certificates
from acr_ray.models import load_checkpoint, state_bytes
from acr_ray.reporting import build_report, open_source
from acr_ray.reporting.summary import certify_numbers
from acr_ray.smoothing.plan import phases
from acr_ray.storage import amend, claim
from acr_ray.tracking.runs import numbers, resolve_checkpoint, with_run
from jobs._certify_options import parser, settings_for
from jobs._main import JobFailed, entry
from jobs._page import log_page
from jobs._progress import CertifyLines
from jobs._run import connect, open_tracker, out_folder, tracking_uri

SCHEMA_VERSION = 1
OWNED = ("ledger", certificates.PARQUET, certificates.TSV, "summary.json")


def main(argv: list[str]) -> None:
    options = parser(__doc__).parse_args(argv)
    out = out_folder(options)
    location, training_run = resolve_checkpoint(options.checkpoint, tracking_uri(options, out))
    model, card = load_checkpoint(location)
    settings, images = settings_for(card, options)
    fingerprint = images.fingerprint()
    identity = settings.identity() | {"model_sha256": card.sha256, "data": fingerprint}
    record = claim(out, "certify", identity, overwrite=options.overwrite, owned=OWNED)
    done = out.is_file("summary.json")
    if done and record.get("tracked"):
        print(f"done before: {out}/{certificates.PARQUET}")
        return
    tracker = open_tracker(options, out)
    name = options.run_name or f"certify {(card.recipe or {}).get('name', card.architecture)}"
    tags = {"acr_ray.training_run_id": training_run} if training_run else {}
    tracker.start("certify", name, record.get("mlflow_run_id"), tags)
    if tracker.run_id:
        record = amend(out, record, mlflow_run_id=tracker.run_id)
    tracker.params(
        {**identity, "radii": settings.radii, "checkpoint": options.checkpoint, "training_run_id": training_run}
    )
    tracker.dataset(f"{images.dataset}-{settings.split}", fingerprint, str(settings.root), "certification")

    def work() -> None:
        if done:
            return
        from acr_ray.certification.coordinator import Actors, Coordinator, SamplersLost
        from acr_ray.certification.ledger import Ledger

        ledger = Ledger(out, list(images.names), phases(settings.n0, settings.n, settings.block), card.num_classes)
        started, before = time.monotonic(), ledger.evaluations
        if settings.sigma != card.sigma:
            print(f"warning: certified at sigma {settings.sigma}, but trained at {card.sigma}")
        print(
            f"certify {len(images)} images, n0 {settings.n0}, n {settings.n}, alpha {settings.alpha}, in {out}",
            flush=True,
        )
        if before:
            print(f"going on: {before:,} noisy samples are in the ledger", flush=True)
        connect(options.verbose)
        actors = Actors.fitting(options.actors, options.gpus_per_actor)
        try:
            Coordinator(ledger, images, settings, card, state_bytes(model), actors).run(CertifyLines())
        except SamplersLost as error:
            raise JobFailed(f"{error}; see the actors' log (--verbose); the same command goes on") from error
        certificates.write(out, certificates.certificate_table(ledger, images, settings, card.sha256))
        row = build_report([open_source((name, f"{out}/{certificates.PARQUET}"))], settings.radii, False).rows[0]
        given = {k: getattr(settings, k) for k in ("sigma", "n0", "n", "alpha", "seed")}
        spent = {"evaluations": ledger.evaluations, "evaluations_this_time": ledger.evaluations - before}
        summary = {"schema_version": SCHEMA_VERSION, **certify_numbers(row, settings.radii), **given, **spent}
        summary |= {"seconds": round(time.monotonic() - started, 3), "model_sha256": card.sha256}
        summary |= {"settings_sha256": settings.sha256, "data_fingerprint": fingerprint}
        out.write_json("summary.json", summary | {"mlflow_run_id": tracker.run_id, "training_run_id": training_run})

    with_run(tracker, work)
    summary = out.read_json("summary.json")
    tracker.metrics(numbers(summary))
    tracker.files(out, [certificates.PARQUET, certificates.TSV, "summary.json"])
    log_page(tracker, [(name, f"{out}/{certificates.PARQUET}")], settings.radii)
    tracker.finish()
    amend(out, record, tracked=tracker.ok)
    print(f"certified: ACR {summary['acr']:.4f}, hard share {100 * summary['hard_share']:.1f} %: {out}", flush=True)


if __name__ == "__main__":
    entry(main)
