"""The Parquet tables that runs leave: columns, versions, and what their metadata say.

Every table names its version in its metadata; other entries are JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VERSION = "acr_ray.schema_version"
SUMMARY = "acr_ray.summary"  # of certificates: how many images there should be, the run's n, …
EPOCH, SIGMA = "acr_ray.epoch", "acr_ray.sigma"  # of p_A estimates
FIELDS = "acr_ray.fields"  # of trials: the columns that are fields of the search space
METRICS = "acr_ray.metrics"  # of trials: the columns that trials measured

CERTIFICATES_VERSION = P_A_VERSION = TRIALS_VERSION = PLAN_IMAGES_VERSION = 1

CERTIFICATES = pa.schema(
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
        ("classes", pa.list_(pa.int64())),  # that the draws gave, ascending,
        ("class_counts", pa.list_(pa.int64())),  # and how often each
        ("certificate", pa.string()),
        ("count_second", pa.int64()),  # the most draws that another class than the selected got
        ("noise", pa.string()),  # lattice/1, pcg64/1, philox-cuda/1; absent: float, as all noise was
        ("step", pa.string()),  # of its grid in input units: 1/255; empty for float noise
        ("grade", pa.string()),  # sound or float, see docs/noise.md; absent: float
        ("noise_alpha", pa.float64()),  # the part of alpha that the noise takes, so that the bound is at the rest
    ]
)

P_A = pa.schema(
    [
        ("image", pa.string()),
        ("idx", pa.int64()),
        ("label", pa.int64()),
        ("p_a", pa.float64()),  # share of the draws that gave the label
        ("count", pa.int64()),
        ("draws", pa.int64()),
        ("purpose", pa.string()),  # discard: all samples; reweigh: those kept
        ("kept", pa.bool_()),  # is trained on from this epoch on
        ("weight", pa.float64()),  # chance to be drawn over the mean of the kept ones; 1: no weights, 0: not kept
    ]
)

PLAN_IMAGES = pa.schema([("image", pa.string()), ("idx", pa.int64()), ("label", pa.int64())])


def described(table: pa.Table, version: int, about: Mapping[str, Any] | None = None) -> pa.Table:
    """Return the table with its version, and what else is known, in its metadata.

    Args:
        about: JSON-like values by the names above.
    """
    entries = {VERSION: version, **(about or {})}
    return table.replace_schema_metadata({name: json.dumps(value) for name, value in entries.items()})


def parquet_bytes(table: pa.Table) -> bytes:
    """Return the table as a Parquet file."""
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()
