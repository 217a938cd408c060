"""Reads ECDF files: ``x`` a probability, ``y`` the share of images with p_A >= x; tabs or commas."""

from __future__ import annotations

import numpy as np

from acr_ray.reporting.distribution import Distribution
from acr_ray.reporting.read_tsv import DEFAULT_ALPHA, DEFAULT_N
from acr_ray.reporting.said import MOST_SIGMA
from acr_ray.reporting.source import Source
from acr_ray.settings.errors import UserError


def read_ecdf(
    content: bytes,
    where: str,
    name: str,
    sigma: float | None = None,
    n: int | None = None,
    alpha: float | None = None,
) -> Source:
    """A curve of p_A without its images.

    The share between two points is counted at the lower one, so that no p_A is overstated; the share
    below the first point is not known any closer.

    Raises:
        UserError: names the file and the line that cannot be read, is out of range or out of order.
    """
    lines = content.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").rstrip().splitlines()
    split = "\t" if "\t" in lines[0] else ","
    if len(lines) < 2:
        raise UserError(f"{where} line 1: a header and no points below it")
    points = [_point(line, number, split, where) for number, line in enumerate(lines[1:], start=2)]
    x, y = np.array(points).T
    for fine, rule in ((np.diff(x) > 0, "x must rise"), (np.diff(y) <= 1e-12, "y must not rise")):
        if not fine.all():
            raise UserError(f"{where} line {int(np.argmin(fine)) + 3}: {rule}")
    share = np.append(y[:-1] - y[1:], y[-1])
    assumed = tuple(o for o, v in (("sigma", sigma), ("n", n), ("alpha", alpha)) if v is None)
    sigma = sigma if sigma is not None else _sigma_at_end(where)
    distribution = Distribution(x[share > 0], share[share > 0], 1.0, float(x[0]), None)
    return Source(name, "ecdf", where, sigma, n or DEFAULT_N, alpha or DEFAULT_ALPHA, distribution, assumed=assumed)


def _point(line: str, number: int, split: str, where: str) -> tuple[float, float]:
    cells = line.split(split)
    try:
        x, y = (float(cell) for cell in cells)
    except ValueError:
        raise UserError(f"{where} line {number}: {line[:60]!r} is not two numbers") from None
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UserError(f"{where} line {number}: x and y must lie in [0, 1], not {x:g} and {y:g}")
    return x, y


def _sigma_at_end(where: str) -> float:
    """The noise level in a file name such as ``gaussian_0.25.csv``."""
    last = where.rsplit("/", 1)[-1].removesuffix(".csv").rsplit("_", 1)[-1]
    try:
        sigma = float(last)
    except ValueError:
        sigma = 0.0
    if not 0 < sigma <= MOST_SIGMA:
        raise UserError(f"{where}: neither the file nor its name says which sigma this is; give --sigma")
    return sigma
