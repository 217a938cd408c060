"""The p_A of training samples as a picture: what discarding and reweighing have seen."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from acr_ray.reporting.figures import COLOURS
from acr_ray.storage.tables import read_table

BINS = 50


def p_a_histogram(content: bytes, title: str) -> bytes:
    """Return a histogram of p_A, one panel for each estimate in the file; samples that are not trained on stand apart.

    Args:
        content: a file of a training run's ``p_a/``.
        title: above the panels.

    Returns:
        a PNG.
    """
    table = read_table(content, {"p_a": "number", "purpose": "text", "kept": "flag"}, title, what="p_A file")
    p_a, kept = table["p_a"].to_numpy(), table["kept"].to_numpy()
    purpose = np.asarray(table["purpose"].to_pylist())
    shown = [name for name in ("discard", "reweigh") if (purpose == name).any()]
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.2 * len(shown), 3), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            rows = purpose == name
            parts = [p_a[rows & kept], p_a[rows & ~kept]]
            names = [f"kept: {len(parts[0])}", f"discarded: {len(parts[1])}"]
            axes.hist(parts, bins=BINS, range=(0, 1), stacked=True, color=COLOURS[:2], label=names)
            axes.set(xlabel=f"p_A before {name}", ylabel="training samples", xlim=(0, 1))
            axes.legend(frameon=False, loc="upper left")
        figure.suptitle(title)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()
