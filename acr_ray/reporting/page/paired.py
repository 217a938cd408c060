"""The page's paired comparison: who gains where, and the images that got worse."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np

from acr_ray.reporting.page.markup import colour, position, shown, signed, wide
from acr_ray.reporting.pairing import Bin, Comparison
from acr_ray.reporting.report import Report
from acr_ray.smoothing.bounds import round_down


def paired(report: Report, thumbnails: Mapping[int, bytes]) -> str:
    """Who gains where, and the images that got worse."""
    if not report.comparisons:
        return ""
    blocks = "".join(_gains(report, c) for c in report.comparisons)
    worse = "".join(_worse(report, c, thumbnails) for c in report.comparisons)
    bases = " and ".join(dict.fromkeys(shown(report, c.baseline) for c in report.comparisons))
    return (
        f'<section id="paired" aria-labelledby="h-paired"><h2 id="h-paired">Who gains, image by image</h2>'
        f"<p>The same images under both, by their <i>p<sub>A</sub></i> under {bases}.</p>{blocks}{worse}</section>"
    )


def _gains(report: Report, c: Comparison) -> str:
    low = min(0.0, *(b.gain for b in c.bins))
    width_of_scale = max(max(0.0, *(b.gain for b in c.bins)) - low, 1e-12)
    tint = colour(report, c.name)
    zero = -low / width_of_scale * 100

    def bar(b: Bin) -> str:
        left, width = (min(b.gain, 0) - low) / width_of_scale * 100, abs(b.gain) / width_of_scale * 100
        style = f"{tint};--l:{left:.2f}%;--w:{width:.2f}%;--zero:{zero:.2f}%"
        return f'<div class="gain" aria-hidden="true" style="{style}"><span></span></div>'

    rows = "".join(
        f'<tr><th scope="row">{b.name.replace(" to ", "–")}</th><td>{bar(b)}</td><td>{signed(b.gain)}</td>'
        f"<td>{b.images}</td><td>{b.gained}</td><td>{b.lost}</td></tr>"
        for b in c.bins
    )
    interval = f"[{signed(c.interval[0])}, {signed(c.interval[1])}]"
    return f"<h3>{shown(report, c.name)} over {shown(report, c.baseline)}</h3>" + wide(
        f"<table><caption>ACR {signed(c.gain)} {interval} on {c.images} images</caption>"
        "<thead><tr>"
        + "".join(
            f'<th scope="col">{h}</th>'
            for h in ("p<sub>A</sub> before", "", "gain in ACR", "images", "newly certified", "no longer certified")
        )
        + f"</tr></thead><tbody>{rows}</tbody></table>",
        f"Gain of {c.name} by p_A",
    )


def _worse(report: Report, c: Comparison, thumbnails: Mapping[int, bytes]) -> str:
    before = next(s for s in report.sources if s.name == c.baseline).rows
    after = next(s for s in report.sources if s.name == c.name).rows
    place = position(report, c.name)
    if not c.worse_count or before is None or after is None:
        return ""
    pictures = any(int(before.idx[a]) in thumbnails for a in c.worse[0])
    rows = []
    for a, b in zip(*c.worse, strict=True):
        idx = int(before.idx[a])
        picture = ""
        if pictures:
            png = thumbnails.get(idx)
            source = "" if png is None else base64.b64encode(png).decode()
            image = f'<img class="thumb" alt="image {idx}" src="data:image/png;base64,{source}">' if png else ""
            picture = f"<td>{image}</td>"
        rows.append(
            f'<tr><th scope="row">{idx}</th>{picture}<td>{before.label[a]}</td>'
            f"<td>{_class(before.predicted[a])}</td><td>{_class(after.predicted[b])}</td>"
            f"<td>{round_down(before.counted_radius[a], 3)}</td><td>{round_down(after.counted_radius[b], 3)}</td>"
            f"<td>{_p_a(before.p_a[a])}</td><td>{_p_a(after.p_a[b])}</td></tr>"
        )
    columns = ["idx", *(["image"] if pictures else []), "label", "class before", "class now"]
    columns += ["radius before", "radius now", "p<sub>A</sub> before", "p<sub>A</sub> now"]
    heads = "".join(f'<th scope="col"><button type="button">{h}</button></th>' for h in columns)
    listed = f"the {len(rows)} that lost most of {c.worse_count}" if len(rows) < c.worse_count else f"all {len(rows)}"
    table = wide(
        f"<table data-sortable><caption>{listed}; radius 0 if not certified for the label</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>",
        f"Images that got worse under {c.name}",
    )
    title = f"Images that got worse under {shown(report, c.name)}"
    return f'<details id="worse-{place}"><summary>{title}</summary>{table}</details>'


def _class(predicted: int) -> str:
    return "abstained" if predicted < 0 else str(predicted)


def _p_a(value: float) -> str:
    return "&lt; 0.5 or unknown" if np.isnan(value) else round_down(value, 4)
