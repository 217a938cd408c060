"""Certificates: from the ledger's counts to certificates.parquet and certificates.tsv."""

from __future__ import annotations

import json
from datetime import timedelta
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acr_ray.certification.count_store import CountStore
from acr_ray.certification.procedure import CERTIFIED
from acr_ray.certification.run_plan import RunPlan
from acr_ray.smoothing.bounds import radius, round_down
from acr_ray.storage import Folder

SCHEMA_VERSION = 1
PARQUET, TSV = "certificates.parquet", "certificates.tsv"
KEEP_COUNTS_UP_TO = 100  # classes; the ledger has all counts anyway

SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("idx", pa.int64()),
        ("label", pa.int64()),
        ("predicted", pa.int64()),
        ("outcome", pa.string()),
        ("count_top", pa.int64()),
        ("count_label", pa.int64()),
        ("n", pa.int64()),
        ("n0", pa.int64()),
        ("counts", pa.list_(pa.int64())),
        ("sigma", pa.float64()),
        ("alpha", pa.float64()),
        ("seed", pa.int64()),
        ("bound", pa.string()),
        ("dtype", pa.string()),
        ("block", pa.int64()),
        ("model_sha256", pa.string()),
        ("settings_sha256", pa.string()),
        ("seconds", pa.float64()),
        ("p_lower", pa.float64()),
        ("stopping", pa.string()),
        ("reason", pa.string()),
    ]
)


def certificate_table(run: RunPlan, store: CountStore) -> pa.Table:
    """One row for each finished image, by position: counts, and the bound where the rule is not a function of them.

    The table's metadata say how many images there should be, and whether some are missing.
    """
    settings, rows = run.settings, []
    for position in sorted(store.finished):
        found = store.finished[position]
        label = int(run.labels[position])
        dense = (
            [found.counts.get(c, 0) for c in range(run.num_classes)] if run.num_classes <= KEEP_COUNTS_UP_TO else None
        )
        rows.append(
            {
                "image": run.names[position],
                "idx": int(run.idx[position]),
                "label": label,
                "predicted": found.predicted,
                "outcome": found.outcome,
                "count_top": found.counts.get(found.predicted, 0),
                "count_label": found.counts.get(label, 0),
                "n": found.n,
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
                "p_lower": found.p_lower,
                "stopping": settings.stopping,
                "reason": found.reason,
            }
        )
    planned = len(run.names)
    about = {
        "incomplete": len(rows) < planned,
        "planned_images": planned,
        "n": settings.n,
        "arithmetic": run.arithmetic,
    }
    about |= {"radii": settings.radii} if settings.stopping == "radii" else {}
    metadata = {
        b"acr_ray.schema_version": str(SCHEMA_VERSION).encode(),
        b"acr_ray.summary": json.dumps(about).encode(),
    }
    return pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata(metadata)


def radii_of(table: pa.Table) -> np.ndarray:
    """Certified radius of each row in input units, ``(images,)``; 0 where it abstains."""
    return radius(table["p_lower"].to_numpy(), table["sigma"].to_numpy()) if len(table) else np.zeros(0)


def content(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    stream = BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def write(folder: Folder, table: pa.Table) -> None:
    """Write ``certificates.parquet`` and ``certificates.tsv`` (the field's columns, radii rounded down)."""
    folder.write_bytes(PARQUET, content(table))
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    for row, r in zip(
        table.select(["idx", "label", "predicted", "outcome", "seconds"]).to_pylist(), radii_of(table), strict=True
    ):
        predict = row["predicted"] if row["outcome"] == CERTIFIED else -1
        time = timedelta(seconds=row["seconds"])
        lines.append(
            f"{row['idx']}\t{row['label']}\t{predict}\t{round_down(r, 6)}\t{int(predict == row['label'])}\t{time}"
        )
    folder.write_text(TSV, "\n".join(lines) + "\n")
