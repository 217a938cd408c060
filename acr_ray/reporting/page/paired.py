"""The page's paired comparison: who gains where, and the images that got worse."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from acr_ray.reporting.page.sections import anchor, colour, named
from acr_ray.reporting.pairing import Bin, Comparison
from acr_ray.reporting.report import Report
from acr_ray.smoothing.bounds import round_down


def paired(report: Report, thumbnails: Mapping[int, bytes]) -> dict[str, Any]:
    """Return what the template of the paired comparison asks for; empty lists if nothing was compared."""
    worse = [_worse(report, c, thumbnails) for c in report.comparisons]
    return {
        "baselines": [named(report, name) for name in dict.fromkeys(c.baseline for c in report.comparisons)],
        "comparisons": [_gains(report, c) for c in report.comparisons],
        "worse": [one for one in worse if one is not None],
    }


def _gains(report: Report, c: Comparison) -> dict[str, Any]:
    low = min(0.0, *(b.gain for b in c.bins))
    width_of_scale = max(max(0.0, *(b.gain for b in c.bins)) - low, 1e-12)
    tint = colour(report, c.name)
    zero = -low / width_of_scale * 100

    def bar(b: Bin) -> str:
        left, width = (min(b.gain, 0) - low) / width_of_scale * 100, abs(b.gain) / width_of_scale * 100
        return f"{tint};--l:{left:.2f}%;--w:{width:.2f}%;--zero:{zero:.2f}%"

    return {
        "named": named(report, c.name),
        "baseline": named(report, c.baseline),
        "label": f"Gain of {c.name} by p_A",
        "total": f"{_signed(c.gain)} [{_signed(c.interval[0])}, {_signed(c.interval[1])}]",
        "images": c.images,
        "rows": [
            {"bin": b.name, "style": bar(b), "cells": [_signed(b.gain), b.images, b.gained, b.lost]} for b in c.bins
        ],
    }


def _worse(report: Report, c: Comparison, thumbnails: Mapping[int, bytes]) -> dict[str, Any] | None:
    before = next(s for s in report.sources if s.name == c.baseline).rows
    after = next(s for s in report.sources if s.name == c.name).rows
    if not c.worse_count or before is None or after is None:
        return None
    rows = []
    for a, b in zip(*c.worse, strict=True):
        idx = int(before.idx[a])
        png = thumbnails.get(idx)
        cells = [before.label[a], _class(before.predicted[a]), _class(after.predicted[b])]
        cells += [round_down(before.counted_radius[a], 3), round_down(after.counted_radius[b], 3)]
        cells += [_p_a(before.p_a[a]), _p_a(after.p_a[b])]
        rows.append({"idx": idx, "png": base64.b64encode(png).decode() if png else "", "cells": cells})
    few = len(rows) < c.worse_count
    return {
        "named": named(report, c.name),
        "anchor": anchor(report, c.name),
        "label": f"Images that got worse under {c.name}",
        "listed": f"the {len(rows)} that lost most of {c.worse_count}" if few else f"all {len(rows)}",
        "pictures": any(row["idx"] in thumbnails for row in rows),
        "rows": rows,
    }


def _class(predicted: int) -> str:
    return "abstained" if predicted < 0 else str(predicted)


def _p_a(value: float) -> str:
    return "< 0.5 or unknown" if np.isnan(value) else round_down(value, 4)


def _signed(value: float) -> str:
    """Return a difference with its sign, rounded towards smaller numbers as radii are."""
    shown = round_down(value, 4)
    return shown.replace("-", "−") if value <= 0 else f"+{shown}"
