"""Reads ECDF files: ``x`` a probability, ``y`` the share of images with p_A >= x; tabs or commas.

Between two points the curve is not known, and close to 1, where a little p_A is much radius, that matters: on the
paper's curves (steps of 0.001) counting all at the lower point made ACR 0.011 to 0.015 low.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import special

from acr_ray.reporting.distribution import Distribution
from acr_ray.reporting.read_tsv import DEFAULT_ALPHA, DEFAULT_N
from acr_ray.reporting.sigma_names import sigma_in
from acr_ray.reporting.source import Source
from acr_ray.settings.errors import UserError

#: Parts of a step: ACR changes by less than 0.0001 with more.
PARTS = 16


def read_ecdf(
    content: bytes,
    where: str,
    name: str,
    sigma: float | None = None,
    n: int | None = None,
    alpha: float | None = None,
) -> Source:
    """Return a curve of p_A without its images.

    The share between two points is spread evenly over Phi^-1(p_A), in which radii are linear, so that ACR and
    certified accuracy are estimates; with all of it at the lower, or at the upper point, they are the source's
    ``between``. A last point above ``1 - 1/n`` is the rounded ``p_A >= 1 - 1/n`` (the paper's x = 1 is 0.99999). The
    share below the first point is not known any closer.

    Raises:
        UserError: names the file and the line that cannot be read, is out of range or out of order.
    """
    lines = content.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").rstrip().splitlines()
    split = "\t" if lines and "\t" in lines[0] else ","
    if len(lines) < 2:
        raise UserError(f"{where} line 1: a header and no points below it")
    points = [_point(line, number, split, where) for number, line in enumerate(lines[1:], start=2)]
    x, y = np.array(points).T
    for fine, rule in ((np.diff(x) > 0, "x must rise"), (np.diff(y) <= 1e-12, "y must not rise")):
        if not fine.all():
            raise UserError(f"{where} line {int(np.argmin(fine)) + 3}: {rule}")
    given = n or DEFAULT_N
    share = np.append(y[:-1] - y[1:], y[-1])
    ends = np.append(np.minimum(x[1:], max(1 - 1 / given, x[-2])), 1.0) if x.size > 1 else np.ones(1)
    starts = np.minimum(x, max(1 - 1 / given, x[-2] if x.size > 1 else 0.0))
    assumed = tuple(o for o, v in (("sigma", sigma), ("n", n), ("alpha", alpha)) if v is None)
    notes: tuple[str, ...] = ()
    if sigma is None:
        sigma, named = sigma_in(where, last_number=True)
        notes = (f"sigma = {sigma:g}, as its name says ({named})",)
    between = (_distribution(starts, share, float(x[0])), _distribution(ends, share, float(x[0])))
    distribution = _distribution(*_spread(starts, ends, share, given), float(x[0]))
    return Source(
        name,
        "ecdf",
        where,
        sigma,
        given,
        alpha or DEFAULT_ALPHA,
        distribution,
        assumed=assumed,
        between=between,
        notes=notes,
    )


def _distribution(p: np.ndarray, share: np.ndarray, known_from: float) -> Distribution:
    values, at = np.unique(p[share > 0], return_inverse=True)
    # numpy's stubs do not know that sums of weights are floats.
    weight = cast(NDArray[np.float64], np.bincount(at, weights=share[share > 0], minlength=values.size))
    return Distribution(values, weight, 1.0, known_from, None)


def _spread(starts: np.ndarray, ends: np.ndarray, share: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of each step that can be certified as `PARTS` equal parts, of all others as one."""
    low, high = special.ndtri(np.clip(starts, 1e-12, 1 - 1e-12)), special.ndtri(np.clip(ends, 1e-12, 1 - 1e-12))
    middle = (np.arange(PARTS) + 0.5) / PARTS
    inner = special.ndtr(low[:, None] + (high - low)[:, None] * middle)
    fine = (starts >= 0.5) & (ends < 1.0)
    p = [starts[~fine], np.clip(inner, starts[:, None], np.nextafter(ends, 0)[:, None])[fine].ravel()]
    weight = [share[~fine], np.repeat(share[fine] / PARTS, PARTS)]
    if fine.size > 1 and fine[-2] and starts[-1] >= 1 - 1 / n:
        # Of n draws all agree, or all but one: of these as many as the curve's slope says, the rest at 1.
        but_one = share[-2] / (high - low)[-2] * (special.ndtri(1 - 0.5 / n) - low[-1])
        at_one = max(0.0, share[-1] - but_one)
        weight[0][-1] -= at_one
        p, weight = [*p, np.ones(1)], [*weight, np.array([at_one])]
    return np.concatenate(p), np.concatenate(weight)


def _point(line: str, number: int, split: str, where: str) -> tuple[float, float]:
    cells = line.split(split)
    try:
        x, y = (float(cell) for cell in cells)
    except ValueError:
        raise UserError(f"{where} line {number}: {line[:60]!r} is not two numbers") from None
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UserError(f"{where} line {number}: x and y must lie in [0, 1], not {x:g} and {y:g}")
    return x, y
