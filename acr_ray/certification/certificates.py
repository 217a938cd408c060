"""Certificates: from the ledger's counts to certificates.parquet and certificates.tsv."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import pyarrow as pa

from acr_ray.certification.count_store import CountStore
from acr_ray.certification.pool import Machine, machines_as_json
from acr_ray.certification.run_plan import RunPlan
from acr_ray.formats.files import CERTIFICATES, CERTIFICATES_TSV
from acr_ray.formats.states import Outcome
from acr_ray.formats.tables import CERTIFICATES as SCHEMA
from acr_ray.formats.tables import CERTIFICATES_VERSION, SUMMARY, described, parquet_bytes
from acr_ray.smoothing.bounds import radius, round_down
from acr_ray.smoothing.two_class import second_count
from acr_ray.storage import Folder

KEEP_COUNTS_UP_TO = 100  # classes in the dense column; the sparse ones have all that came up


def certificate_table(run: RunPlan, store: CountStore, machines: Iterable[Machine] = ()) -> pa.Table:
    """One row for each finished image, by position: counts, and the bound if the rule is not a function of them.

    The table's metadata say how many images there should be, whether some are missing, how the classes are called, and
    what drew.

    Args:
        machines: that drew, if they are known.
    """
    settings, rows = run.settings, []
    for position in sorted(store.finished):
        verdict = store.finished[position]
        # Of merged runs an image may have more draws than the first of them planned.
        noise = run.noise(max(settings.n, verdict.n))
        label, keep = int(run.labels[position]), run.num_classes <= KEEP_COUNTS_UP_TO
        dense = [verdict.counts.get(c, 0) for c in range(run.num_classes)] if keep else None
        rows.append(
            {
                "image": run.names[position],
                "idx": int(run.idx[position]),
                "label": label,
                "predicted": verdict.predicted,
                "outcome": verdict.outcome,
                "count_top": verdict.counts.get(verdict.predicted, 0),
                "count_label": verdict.counts.get(label, 0),
                "n": verdict.n,
                "n0": settings.n0,
                "counts": dense,
                "sigma": settings.sigma,
                "alpha": settings.alpha,
                "seed": settings.seed,
                "bound": store.procedure.rule.name,
                "dtype": settings.dtype,
                "block": settings.block,
                "model_sha256": run.model_sha256,
                "settings_sha256": settings.sha256,
                "seconds": store.seconds(position),
                "p_lower": verdict.p_lower,
                "stopping": settings.stopping,
                "reason": verdict.reason,
                "classes": sorted(verdict.counts),
                "class_counts": [verdict.counts[label] for label in sorted(verdict.counts)],
                "certificate": settings.certificate,
                "count_second": second_count(verdict.counts, verdict.predicted),
                "noise": noise.name,
                "step": noise.step,
                "grade": noise.grade,
                "noise_alpha": noise.share,
            }
        )
    planned = len(run.names)
    about = {
        "incomplete": len(rows) < planned,
        "planned_images": planned,
        "n": settings.n,
        "arithmetic": run.arithmetic,
        "class_names": list(run.class_names),
    }
    about |= {"radii": settings.radii} if settings.stopping == "radii" else {}
    about |= {"band": settings.band, "band_upto": settings.band_upto} if settings.stopping == "distribution" else {}
    drawn_by = machines_as_json(machines)
    about |= {"drawn_by": drawn_by} if drawn_by else {}
    return described(pa.Table.from_pylist(rows, schema=SCHEMA), CERTIFICATES_VERSION, {SUMMARY: about})


def radii_of(table: pa.Table) -> np.ndarray:
    """Return the certified radius of each row in input units, ``(images,)``; 0 if it abstains."""
    return radius(table["p_lower"].to_numpy(), table["sigma"].to_numpy()) if len(table) else np.zeros(0)


def write(folder: Folder, table: pa.Table) -> None:
    """Write ``certificates.parquet`` and ``certificates.tsv`` (the field's columns, radii rounded down)."""
    folder.write_bytes(CERTIFICATES, parquet_bytes(table))
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    for row, r in zip(
        table.select(["idx", "label", "predicted", "outcome", "seconds"]).to_pylist(), radii_of(table), strict=True
    ):
        predict = row["predicted"] if row["outcome"] == Outcome.CERTIFIED else -1
        time = timedelta(seconds=row["seconds"])
        lines.append(
            f"{row['idx']}\t{row['label']}\t{predict}\t{round_down(r, 6)}\t{int(predict == row['label'])}\t{time}"
        )
    folder.write_text(CERTIFICATES_TSV, "\n".join(lines) + "\n")
