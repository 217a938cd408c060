"""Certificates: from the ledger's counts to certificates.parquet and certificates.tsv."""

from __future__ import annotations

import json
from datetime import timedelta
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acr_ray.certification.ledger import Ledger
from acr_ray.data import ImageSet
from acr_ray.settings import CertifySettings
from acr_ray.smoothing.bounds import lower_bound, radius, round_down
from acr_ray.smoothing.decide import certify
from acr_ray.smoothing.plan import ESTIMATE, SELECT
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
    ]
)


def certificate_table(ledger: Ledger, images: ImageSet, settings: CertifySettings, model_sha256: str) -> pa.Table:
    """One row an image, counts only: radius and accuracy are derived by who reads it. All images must be complete."""
    rows = []
    for position, name in enumerate(images.names):
        counts = ledger.counts(position, ESTIMATE)
        found = certify(ledger.counts(position, SELECT), counts, settings.sigma, settings.alpha)
        label = int(images.labels[position])
        rows.append(
            {
                "image": name,
                "idx": int(images.idx[position]),
                "label": label,
                "predicted": found.predicted,
                "outcome": "abstained" if found.abstained else "certified",
                "count_top": found.count_top,
                "count_label": int(counts[label]),
                "n": found.n,
                "n0": settings.n0,
                "counts": counts.tolist() if len(counts) <= KEEP_COUNTS_UP_TO else None,
                "sigma": settings.sigma,
                "alpha": settings.alpha,
                "seed": settings.seed,
                "bound": "clopper-pearson",
                "dtype": "float32",
                "block": settings.block,
                "model_sha256": model_sha256,
                "settings_sha256": settings.sha256,
                "seconds": ledger.seconds(position),
            }
        )
    metadata = {
        b"acr_ray.schema_version": str(SCHEMA_VERSION).encode(),
        b"acr_ray.summary": json.dumps({"incomplete": False, "planned_images": len(images.names)}).encode(),
    }
    return pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata(metadata)


def radii_of(table: pa.Table) -> np.ndarray:
    """Certified radius of each row, ``(images,)``; 0 where it abstains."""
    column = {name: table[name].to_numpy() for name in ("count_top", "n", "sigma", "alpha")}
    if not len(table):
        return np.zeros(0)
    bound = lower_bound(column["count_top"], column["n"], float(column["alpha"][0]))
    return radius(bound, column["sigma"])


def write(folder: Folder, table: pa.Table) -> None:
    """Write ``certificates.parquet`` and ``certificates.tsv`` (the field's columns, radii rounded down)."""
    content = BytesIO()
    pq.write_table(table, content)
    folder.write_bytes(PARQUET, content.getvalue())
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    for row, r in zip(
        table.select(["idx", "label", "predicted", "outcome", "seconds"]).to_pylist(), radii_of(table), strict=True
    ):
        predict = -1 if row["outcome"] == "abstained" else row["predicted"]
        time = timedelta(seconds=row["seconds"])
        lines.append(
            f"{row['idx']}\t{row['label']}\t{predict}\t{round_down(r, 6)}\t{int(predict == row['label'])}\t{time}"
        )
    folder.write_text(TSV, "\n".join(lines) + "\n")
