"""A million rows: read, compared and drawn on one core."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.reporting.making import certificates

ROWS = 1_000_000
_MEASURE = """
import json, resource, sys, time
from acr_ray.reporting import write_report
from acr_ray.storage import Folder
report = write_report(sys.argv[1:3], Folder(sys.argv[3]))
usage = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss, which a child inherits from the process that started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"cpu": usage.ru_utime + usage.ru_stime, "mb": int(peak.split()[1]) / 1024,
                  "acr": [row.acr for row in report.rows], "images": report.comparisons[0].images}))
"""


@pytest.mark.slow
def test_a_million_rows_in_a_gigabyte_and_a_page_of_three_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for name, easy in (("a", 1.2), ("b", 1.6)):
        counts = rng.binomial(100_000, rng.beta(easy, 0.25, ROWS))
        paths.append(certificates(tmp_path / name / "certificates.parquet", counts, n=100_000))
    # Two sources of a million rows each. Seconds are printed, not asserted: they are the machine's.
    out = tmp_path / "out"
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURE, *paths, str(out)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
        env={
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MPLCONFIGDIR": str(tmp_path),
        },
    )
    measured = json.loads(ended.stdout)
    assert measured["images"] == ROWS
    print(f"{measured['cpu']:.1f} processor seconds, {measured['mb']:.0f} MB")
    assert measured["mb"] < 1000
    assert (out / "report.html").stat().st_size < 3_000_000
