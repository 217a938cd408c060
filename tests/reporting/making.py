"""Small certificate files for the tests, and where the reference files lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acr_ray.smoothing.bounds import lower_bound

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
GOOD_ROWS = (
    "0\t3\t3\t0.529\t1\t0:00:08.591588",
    "1\t8\t8\t0.953\t1\t0:00:08.067477",
    "2\t8\t-1\t0.0\t0\t0:00:08.067477",
    "3\t0\t5\t0.412\t0\t0:00:08.067477",
)


def reference(path: str) -> str:
    """A reference file's path; skips the test where the files are absent."""
    file = REFERENCE / path
    if not file.exists():
        pytest.skip(f"needs the reference files beside the repository ({file.name} is not there)")
    return str(file)


def cifar(method: str) -> str:
    return f"{method}=" + reference(f"certify/cifar10/{method}/noise_0.25.tsv")


def tsv(tmp_path: Path, lines: Sequence[str], name: str = "noise_0.25.tsv", end: str = "\n", last: str = "\n") -> str:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + last).encode())
    return str(path)


def certificates(
    path: Path,
    counts: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    wrong: Sequence[int] = (),
    n: int = 1000,
    sigma: float = 0.25,
    alpha: float = 0.001,
    idx: Sequence[int] | None = None,
    change: dict | None = None,
    summary: dict | None = None,
) -> str:
    """Writes certificates.parquet: ``counts`` of the label; rows in ``wrong`` select another class.

    ``change`` replaces whole columns, to break the file.
    """
    counts = np.asarray(counts)
    images = counts.size
    labels = np.asarray(labels if labels is not None else np.arange(images) % 3)
    idx = np.asarray(idx if idx is not None else np.arange(images))
    is_wrong = np.isin(np.arange(images), wrong)
    top = np.where(is_wrong, n - counts, counts)
    columns = {
        "image": pa.array([f"test/{i}" for i in idx]),
        "idx": idx,
        "label": labels,
        "predicted": np.where(is_wrong, labels + 1, labels),
        "outcome": np.where(lower_bound(top, n, alpha) > 0.5, "certified", "abstained"),
        "count_top": top,
        "count_label": counts,
        "n": np.full(images, n),
        "n0": np.full(images, 100),
        "sigma": np.full(images, sigma),
        "alpha": np.full(images, alpha),
        "seed": np.zeros(images, dtype=np.int64),
        "bound": ["clopper-pearson"] * images,
        **(change or {}),
    }
    table = pa.table(columns)
    metadata = {b"acr_ray.schema_version": b"1"}
    if summary is not None:
        metadata[b"acr_ray.summary"] = json.dumps(summary).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)
