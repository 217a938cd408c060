"""What certification leaves is read back to the numbers that certification states."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from acr_ray.certification.certificates import write
from acr_ray.formats.tables import CERTIFICATES as SCHEMA
from acr_ray.reporting import open_source
from acr_ray.reporting.metrics import abstained_share, acr, certified_accuracy, hard_share
from acr_ray.smoothing.bounds import lower_bound, radius
from acr_ray.storage import Folder

N, SIGMA, ALPHA, RADII = 2000, 0.5, 0.01, (0.0, 0.25, 0.75)


def table(images: int = 60) -> pa.Table:
    rng = np.random.default_rng(4)
    rows = []
    for i in range(images):
        counts = rng.multinomial(N, rng.dirichlet([6 if i % 3 == c else 0.4 for c in range(3)]))
        counts, label = np.roll(counts, i % 5 == 0), i % 3  # every fifth image is mostly wrong
        top = int(np.argmax(counts))
        bound = float(lower_bound(counts[top], N, ALPHA))
        rows.append(
            dict.fromkeys(SCHEMA.names)
            | {"image": f"digits/test/{i}", "idx": 4 * i, "label": label, "predicted": top, "seed": 0, "n": N}
            | {"outcome": "certified" if bound > 0.5 else "abstained", "n0": 100}
            | {"count_top": int(counts[top]), "count_label": int(counts[label]), "counts": counts.tolist()}
            | {"count_second": int(np.delete(counts, top).max())}
            | {"sigma": SIGMA, "alpha": ALPHA, "bound": "clopper-pearson", "dtype": "float32", "block": 500}
            | {"model_sha256": "m", "settings_sha256": "s", "seconds": 0.25}
            | {"p_lower": bound if bound > 0.5 else 0.0, "stopping": "fixed", "reason": "n"}
            | {"noise": "pcg64/1", "step": "", "grade": "float", "noise_alpha": 0.0}
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def slow_numbers(held: pa.Table) -> dict:
    """The summary's numbers, image by image."""
    rows = held.to_pylist()
    right = [r["outcome"] == "certified" and r["predicted"] == r["label"] for r in rows]
    radii = [float(radius(lower_bound(r["count_top"], N, ALPHA), SIGMA)) for r in rows]
    pairs = list(zip(right, radii, strict=True))
    return {
        "acr": sum(r for ok, r in pairs if ok) / len(rows),
        "certified_accuracy": {f"{at:g}": sum(ok and r >= at for ok, r in pairs) / len(rows) for at in RADII},
        "abstained": sum(r["outcome"] == "abstained" for r in rows) / len(rows),
        "hard_share": sum(2 * r["count_label"] < N for r in rows) / len(rows),
    }


@pytest.mark.parametrize("name", ["", "/certificates.parquet", "/certificates.tsv"])
def test_a_run_reads_back_to_its_own_summary(tmp_path, name):
    held, folder = table(), Folder(tmp_path / "run")
    said = slow_numbers(held) | {"sigma": SIGMA, "n": N, "alpha": ALPHA}
    write(folder, held)
    folder.write_json("summary.json", said)
    source = open_source(f"{tmp_path}/run{name}")
    assert (source.sigma, source.n, source.alpha, source.images) == (SIGMA, N, ALPHA, 60)
    assert source.name == "run" and not source.incomplete and 0.1 < said["acr"] < 1.3
    # The text file holds radii of six decimals, rounded down.
    assert said["acr"] - (1e-6 if name.endswith("tsv") else 1e-12) <= acr(source) <= said["acr"] + 1e-12
    assert (
        dict(zip(("0", "0.25", "0.75"), certified_accuracy(source, RADII), strict=True)) == said["certified_accuracy"]
    )
    assert abstained_share(source) == said["abstained"]
    if not name.endswith("tsv"):
        assert hard_share(source) == said["hard_share"]
    np.testing.assert_array_equal(
        source.rows.p_a[source.rows.correct], np.array(held["count_label"])[source.rows.correct] / N
    )
